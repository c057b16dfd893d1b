"""When a turn asks its provider again."""

import math

import pytest

from turnpool.errors import TransientProviderError
from turnpool_workers.attempt.retries import Retries, out_of_time

FAR = 600.0


def pauses(count: int, error: TransientProviderError, number: int = 1, left: float = FAR) -> list[float]:
    """The pauses before the try of this number, of many turns."""
    found = []
    for _ in range(count):
        retries = Retries(20)
        for _ in range(number - 1):
            retries.pause(error, left)
        pause = retries.pause(error, left)
        assert pause is not None
        found.append(pause)
    return found


@pytest.mark.parametrize(("number", "longest"), [(1, 1.0), (2, 2.0), (4, 8.0), (9, 15.0)])
def test_a_pause_grows_with_the_tries_and_is_spread(number: int, longest: float) -> None:
    """Exponential with full jitter, to a limit."""
    found = pauses(200, TransientProviderError("x"), number)
    assert 0.5 <= min(found) < longest / 2 + 0.5
    assert longest / 2 < max(found) <= 0.5 + longest


@pytest.mark.parametrize("hint", [0.05, 2.0, 60.0])
@pytest.mark.parametrize("number", [1, 3])
def test_a_hint_is_a_minimum_and_the_turns_spread_after_it(hint: float, number: int) -> None:
    """Those that were refused together do not come back in one wave."""
    found = pauses(300, TransientProviderError("x", hint), number)
    assert min(found) >= hint
    spread = max(found) - min(found)
    assert spread > max(2.0**number, hint) * 0.2
    # No tenth of the time sees many more than a tenth of them.
    tenths = [int((pause - min(found)) / spread * 9.99) for pause in found]
    assert max(map(tenths.count, range(10))) < 70


@pytest.mark.parametrize("error", [
    TransientProviderError("x", 0.1),
    TransientProviderError("x", unavailable=True),
])  # fmt: skip
def test_a_provider_that_took_no_request_uses_up_no_tries(error: TransientProviderError) -> None:
    """It is asked as long as the deadline is far; then its error is the turn's."""
    retries = Retries(0)
    assert all(retries.pause(error, FAR) for _ in range(500))
    assert retries.pause(error, 0.05) is None
    assert Retries(0).pause(TransientProviderError("x"), FAR) is None


def test_other_failures_are_counted_until_the_answer_gets_further() -> None:
    """Refusals in between count neither way."""
    retries, failure = Retries(2), TransientProviderError("x")
    assert retries.pause(failure, FAR)
    assert retries.pause(TransientProviderError("x", unavailable=True), FAR)
    assert retries.pause(failure, FAR)
    assert retries.pause(failure, FAR) is None
    retries.progressed()
    assert retries.pause(failure, FAR)


@pytest.mark.parametrize("hint", [None, 3.0])
def test_a_pause_ends_before_the_deadline(hint: float | None) -> None:
    """With time for one more answer."""
    error = TransientProviderError("x", hint, unavailable=True)
    assert max(pauses(200, error, number=9, left=4.0)) < 4.0


@pytest.mark.parametrize("hint", [0, -1.0, math.nan, math.inf, -math.inf])
def test_no_time_is_no_hint(hint: float) -> None:
    """Whoever obeyed 0 would ask at once, again and again."""
    error = TransientProviderError("x", hint)
    assert error.retry_after is None
    assert not out_of_time(error, 1.0)
    assert min(pauses(100, error)) >= 0.5


def test_a_hint_beyond_the_deadline_is_seen_at_once() -> None:
    """Waiting for it would end in deadline_exceeded, which says less."""
    assert out_of_time(TransientProviderError("x", 1e300), FAR)
    assert out_of_time(TransientProviderError("x", 10.0), 10.0)
    assert not out_of_time(TransientProviderError("x", 9.0), 10.0)
