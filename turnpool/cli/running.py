"""A run of `turnpool up`, from the first process to the end of the last."""

import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from turnpool.cli.parts import Options, Part, Plan, check_ports, make_plan
from turnpool.cli.supervisor import Supervisor
from turnpool.errors import TurnpoolError
from turnpool.exposure import check_exposure
from turnpool.settings import read_settings

START_SECONDS = 60.0  # 6 s are usual; a busy machine and a long append-only file take more
SERVICE_EXTRA_SECONDS = 5.0  # beyond the drain time, which the worker keeps by itself
BASE_SECONDS = 10.0  # Valkey writes its last second of data


class NotReadyError(TurnpoolError):
    """A process runs but does not get ready."""

    code = "not_ready"


def run(options: Options) -> None:
    """Start everything, say so when it is ready, and end it when asked to."""
    check_exposure(read_settings(), options.host)
    with _own(options.data):
        plan = make_plan(options, os.environ)
        check_ports(plan.parts)
        _run(plan, options)


def _run(plan: Plan, options: Options) -> None:
    console = Console(highlight=False)
    supervisor = Supervisor(sys.stdout, [part.name for part in plan.parts])
    stop = _StopRequests()
    if plan.note:
        supervisor.say(plan.note)
    try:
        _start(supervisor, [part for part in plan.parts if part.base], plan, stop)
        _start(supervisor, [part for part in plan.parts if not part.base], plan, stop)
        if not stop.requested:
            console.print(_welcome(plan, options), soft_wrap=True)
        while not stop.requested:
            supervisor.watch()
    finally:
        _end(supervisor, plan, stop)


def _start(supervisor: Supervisor, parts: list[Part], plan: Plan, stop: "_StopRequests") -> None:
    for part in parts:
        if stop.requested:
            return
        supervisor.start(part.name, part.command, plan.env)
    waiting = list(parts)
    until = time.monotonic() + START_SECONDS
    while waiting and not stop.requested:
        supervisor.watch()
        waiting = [part for part in waiting if not part.ready()]
        if waiting and time.monotonic() > until:
            names = ", ".join(part.name for part in waiting)
            raise NotReadyError(
                f"Not ready after {START_SECONDS:.0f} s: {names}; the reason should be above."
            )


def _end(supervisor: Supervisor, plan: Plan, stop: "_StopRequests") -> None:
    """End the services first, so that the turns they hand back are still written."""
    stop.ending = True
    supervisor.say("stopping; running turns get their time, a second Ctrl-C cuts it short")
    patience = float(plan.env["TURNPOOL_DRAIN_SECONDS"]) + SERVICE_EXTRA_SECONDS
    services = [part.name for part in plan.parts if not part.base]
    supervisor.end(services, patience, hurry=lambda: stop.again)
    base = [part.name for part in plan.parts if part.base]
    supervisor.end(base, BASE_SECONDS, hurry=lambda: False)


class _StopRequests:
    """Notes the signals that ask to stop, and whether one more came while stopping."""

    def __init__(self) -> None:
        self.requested = False
        self.ending = False
        self.again = False
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, self._handle)

    def _handle(self, _signum: int, _frame: FrameType | None) -> None:
        self.again = self.ending
        self.requested = True


@contextmanager
def _own(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: two Valkeys on one append-only file would ruin it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError:
        raise TurnpoolError(
            f"Another turnpool up uses {folder}: end it, or choose another folder with --data."
        ) from None


def _welcome(plan: Plan, options: Options) -> RenderableType:
    address = f"localhost:{options.port}"
    user, password = (plan.env[f"TURNPOOL_FLOWER_{name}"] for name in ("USER", "PASSWORD"))
    lines = [
        f"API     http://{address}  (described at http://{address}/docs)",
        f"Flower  http://localhost:{options.flower_port}  user {user}, password {password}",
        f"Model   {plan.model}",
        f"Data    {options.data}",
        "",
        "Ctrl-C ends all. Ask it something with `turnpool chat`, or:",
    ]
    # Outside of the frame and on one line, so that it can be copied.
    curl = (
        "curl -N -H 'Accept: text/event-stream' -H 'Content-Type: application/json' "
        f"""-d '{{"input":"Why is the sea salty?"}}' {address}/v1/sessions/demo/turns\n"""
    )
    return Group(Panel.fit(Text("\n".join(lines)), title="turnpool is up"), Text(curl))
