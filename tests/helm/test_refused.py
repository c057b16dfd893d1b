"""Bad values are refused with a message that says what to do."""

import pytest

from tests.helm.cases import Values
from tests.helm.refused import REFUSED
from tests.helm.tools import refusal


@pytest.mark.slow
@pytest.mark.parametrize(("values", "words"), REFUSED.values(), ids=list(REFUSED))
def test_refused(values: Values, words: str) -> None:
    """Helm renders nothing and its message names the value."""
    assert words in refusal(values)
