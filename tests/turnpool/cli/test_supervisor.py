"""Child processes: their logs, their order, their end."""

import io
import os
import sys
import time
from collections.abc import Callable

import pytest

from turnpool.cli.supervisor import ChildEndedError, Supervisor

OBEDIENT = "import signal; print('ready', flush=True); signal.pause()"
STUBBORN = "import signal; signal.signal(15, print); print('ready', flush=True)\nwhile 1: signal.pause()"


def start(supervisor: Supervisor, name: str, code: str) -> None:
    """Start a Python process."""
    supervisor.start(name, [sys.executable, "-c", code], os.environ)


def watch_until(supervisor: Supervisor, condition: Callable[[], bool]) -> None:
    """Show logs until something holds."""
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        supervisor.watch(0.02)


def test_lines_carry_the_name_of_their_process() -> None:
    """Logs of several processes can be told apart."""
    output = io.StringIO()
    supervisor = Supervisor(output, ["api", "worker"])
    for name in ("api", "worker"):
        start(supervisor, name, OBEDIENT)
    watch_until(supervisor, lambda: output.getvalue().count("ready") == 2)
    supervisor.end(["api", "worker"], 10, hurry=lambda: False)
    assert "api    | ready" in output.getvalue()
    assert "worker | ready" in output.getvalue()


def test_a_process_that_ends_by_itself_is_named() -> None:
    """The error says which one and how."""
    supervisor = Supervisor(io.StringIO(), ["api", "worker"])
    start(supervisor, "api", OBEDIENT)
    start(supervisor, "worker", "raise SystemExit(3)")
    with pytest.raises(ChildEndedError, match=r"worker ended \(exit status 3\)"):
        watch_until(supervisor, lambda: False)
    supervisor.end(["api", "worker"], 10, hurry=lambda: False)


def test_a_killed_process_is_named_with_its_signal() -> None:
    """A crash reads differently from an exit."""
    supervisor = Supervisor(io.StringIO(), ["api"])
    start(supervisor, "api", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(ChildEndedError, match=r"api ended \(signal SIGKILL\)"):
        watch_until(supervisor, lambda: False)


@pytest.mark.parametrize(("patience", "hurried"), [(0.2, False), (60.0, True)])
def test_what_does_not_end_is_killed(patience: float, hurried: bool) -> None:  # noqa: FBT001
    """Patience runs out by itself or by a second Ctrl-C, and the person is told."""
    output = io.StringIO()
    supervisor = Supervisor(output, ["worker"])
    start(supervisor, "worker", STUBBORN)
    watch_until(supervisor, lambda: "ready" in output.getvalue())
    supervisor.end(["worker"], patience, hurry=lambda: hurried)
    assert "worker has not ended, so it is killed" in output.getvalue()


def test_a_ctrl_c_in_the_terminal_does_not_reach_the_processes() -> None:
    """Each is in a session of its own, so only the supervisor decides when it ends."""
    output = io.StringIO()
    supervisor = Supervisor(output, ["api"])
    start(supervisor, "api", "import os; print(os.getsid(0) == os.getpid(), flush=True); input()")
    with pytest.raises(ChildEndedError):  # it gets no input
        watch_until(supervisor, lambda: False)
    assert "| True" in output.getvalue()


def test_a_lost_terminal_does_not_stop_the_end() -> None:
    """Printing that fails is no reason to leave processes behind."""

    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    supervisor = Supervisor(Gone(), ["api"])
    start(supervisor, "api", OBEDIENT)
    supervisor.watch(0.3)
    supervisor.end(["api"], 10, hurry=lambda: False)
