"""Log lines, of a process of its own: logging is set up for all of it."""

import os
import pty
import subprocess
import sys

import pytest

PROGRAM = """
import logging
from turnpool.logs import configure, get_logger
configure("INFO", "test")
secret = "hush" * 2
try:
    raise ValueError("broken")
except ValueError as error:
    get_logger("own").error("failed", exc_info=error)
    logging.getLogger("library").exception("failed")
"""


@pytest.mark.slow
@pytest.mark.parametrize("terminal", [True, False])
def test_a_traceback_shows_no_locals(*, terminal: bool) -> None:
    """They may hold keys; a person at the terminal gets no more than a log does."""
    shown, end = pty.openpty() if terminal else os.pipe()
    with os.fdopen(shown, "rb", buffering=0) as output:
        subprocess.run([sys.executable, "-c", PROGRAM], stderr=end, check=True, timeout=30)
        text = output.read(65_536).decode()
        os.close(end)
    assert text.count("ValueError: broken") == 2
    assert "hushhush" not in text
    assert text.startswith("{") is not terminal
