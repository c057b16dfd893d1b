"""Log lines, of a process of its own: logging is set up for all of it."""

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

# A device on which nothing has room.
FULL = Path("/dev/full")
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
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=end) as process:
        os.close(end)
        text = read(shown)
    assert process.returncode == 0
    assert "hushhush" not in text
    assert text.count("ValueError: broken") == 2
    assert text.startswith("{") is not terminal


@pytest.mark.slow
def test_lines_of_libraries_look_like_our_own() -> None:
    """The same members, whatever is said; one object a line."""
    program = """
import logging
from turnpool.logs import configure, get_logger
configure("INFO", "test")
get_logger("own").info("said", what="half \\ud800 a pair", of={1, 2})
get_logger("own").debug("unsaid")
logging.getLogger("library").info("said")
logging.getLogger("library").debug("unsaid")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    own, library = map(json.loads, done.stderr.splitlines())
    assert own.keys() - library.keys() == {"what", "of"}
    assert (own["logger"], own["event"], own["level"], own["process"]) == ("own", "said", "info", "test")
    assert (library["logger"], library["event"]) == ("library", "said")


@pytest.mark.slow
@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_nobody_fails_for_want_of_a_log() -> None:
    """A full disk may come with all else that goes wrong, and that must be dealt with."""
    program = """
from turnpool.logs import configure, get_logger
configure("INFO", "test")
get_logger("own").warning("said")
circular = []
circular.append(circular)
get_logger("own").warning("said", circular=circular)
print("goes on")
"""
    with FULL.open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, check=False
        )
    assert done.stdout == b"goes on\n"


def read(source: int) -> str:
    """All that is written there until its other end is closed, which is an error of a terminal."""
    text = b""
    with open(source, "rb", buffering=0) as output, suppress(OSError):
        while part := output.read(4096):
            text += part
    return text.decode()


@pytest.mark.slow
def test_an_outage_does_not_flood_the_log() -> None:
    """One line a second of each kind and module; the next says how many were left out. Others all come."""
    program = """
from turnpool import logs
logs.configure("INFO", "test")
one, other = logs.get_logger("one"), logs.get_logger("other")
for n in range(1000):
    one.warning("redis_away", n=n)
    other.warning("redis_away", n=n)
one.warning("malformed_wakeup", n=1)
one.warning("malformed_wakeup", n=2)
logs.REPEAT_SECONDS = 0
one.warning("redis_away", n=1000)
one.warning("redis_away", n=1001)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = list(map(json.loads, done.stderr.splitlines()))
    said = [(line["logger"], line["event"], line["n"], line.get("left_out")) for line in lines]
    assert said == [
        ("one", "redis_away", 0, None),
        ("other", "redis_away", 0, None),
        ("one", "malformed_wakeup", 1, None),
        ("one", "malformed_wakeup", 2, None),
        ("one", "redis_away", 1000, 999),
        ("one", "redis_away", 1001, None),
    ]
