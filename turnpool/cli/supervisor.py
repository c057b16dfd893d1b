"""Child processes under one roof: their logs prefixed, their end in good order.

Honcho runs each process and prints its lines. Its Manager is not used: that starts all at once,
ends all at once and kills after 5 s, while here Valkey has to be there first and last, and running
turns get their time.
"""

import os
import queue
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, TextIO

from honcho.colour import get_colours
from honcho.printer import Message, Printer
from honcho.process import Process

from turnpool.errors import TurnpoolError

SYSTEM = "up"  # the prefix of our own lines
SHOW_LOGS_SECONDS = 0.1  # a line is at most so late


class ChildEndedError(TurnpoolError):
    """A child process ended although nobody asked it to."""

    code = "child_ended"

    def __init__(self, name: str, status: int) -> None:
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        super().__init__(f"{name} ended ({how}); its last lines are above. All else was stopped.")


class Supervisor:
    """Starts, watches and ends child processes, each in a session of its own.

    So a Ctrl-C in the terminal reaches only this process, which then ends the others in order.
    """

    def __init__(self, output: TextIO, names: Sequence[str]) -> None:
        self._printer = Printer(output, width=max(map(len, [SYSTEM, *names])))
        self._colours = get_colours()
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._running: dict[str, int | None] = {}
        self._ended: dict[str, int] = {}
        self._kill_with_us = _death_signal()

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> None:
        """Start a process."""
        # honcho runs a shell; exec puts the command in its place, so that it gets the signals.
        line = "exec " + shlex.join([*self._kill_with_us, *command])
        process = Process(line, name=name, colour=next(self._colours), env=dict(env))
        self._running[name] = None
        threading.Thread(target=process.run, args=(self._events,), daemon=True, name=name).start()

    def watch(self, seconds: float = SHOW_LOGS_SECONDS) -> None:
        """Show the logs for some time. Raises ChildEndedError if a process ends meanwhile."""
        self._show_logs(seconds)
        for name, status in self._ended.items():
            raise ChildEndedError(name, status)

    def end(self, names: Iterable[str], patience_seconds: float, hurry: Callable[[], bool]) -> None:
        """Ask processes to end and show their logs until they have.

        What outlasts the patience, or a sudden `hurry`, is killed.
        """
        names = set(names)
        self._send(signal.SIGTERM, names)
        until = time.monotonic() + patience_seconds
        while self._left(names) and time.monotonic() < until and not hurry():
            self._show_logs(SHOW_LOGS_SECONDS)
        for name in self._left(names):
            self.say(f"{name} has not ended, so it is killed")
        self._send(signal.SIGKILL, names)
        while self._left(names):
            self._show_logs(SHOW_LOGS_SECONDS)

    def say(self, line: str) -> None:
        """Print a line of our own among the logs."""
        self._print(Message("line", line, datetime.now().astimezone(), SYSTEM, None))

    def _left(self, names: set[str]) -> set[str]:
        return names & self._running.keys()

    def _send(self, signum: signal.Signals, names: set[str]) -> None:
        for name in self._left(names):
            while (pid := self._running.get(name, 0)) is None:  # its thread has not come that far
                self._show_logs(SHOW_LOGS_SECONDS)
            with suppress(ProcessLookupError):
                if pid:
                    os.kill(pid, signum)

    def _show_logs(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        with suppress(queue.Empty):
            while True:
                self._handle(self._events.get(timeout=max(until - time.monotonic(), 0)))

    def _handle(self, message: Any) -> None:
        match message.type:
            case "line":
                self._print(message)
            case "start":
                self._running[message.name] = message.data["pid"]
            case "stop":
                del self._running[message.name]
                self._ended[message.name] = message.data["returncode"]

    def _print(self, message: Any) -> None:
        with suppress(OSError):  # a terminal that is gone is no reason to leave processes behind
            self._printer.write(message)


def _death_signal() -> list[str]:
    """Return the prefix that ends a command when we are killed, where the system has one."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return []
    prefix = [setpriv, "--pdeathsig", "TERM", "--"]
    works = subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode == 0  # noqa: S603
    return prefix if works else []
