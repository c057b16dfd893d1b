"""Starts worker processes by fork, so that twelve at once start as quickly as one.

    python -m bench.scaling.nursery

On a cluster each pod starts on cores of its own. Here twelve fresh interpreters would fight for two cores
over their imports for 12 seconds. So one process has everything imported, and each worker is a fork of it
that first sleeps for as long as a start by itself takes, then runs `turnpool-worker`'s own main.

Lines on standard input: {"env": {...}, "log": path, "sleep": seconds}. Lines on standard output, in order:
`started <pid>`, and `ended <pid> <status>`. The end of standard input kills what is left.
"""

import json
import os
import select
import signal
import sys
import time
from typing import Any

import celery.concurrency
import celery.events
import celery.worker.components
import celery.worker.consumer
import celery.worker.worker
import kombu.transport.redis

import turnpool_workers.agents.chat
import turnpool_workers.agents.simulated
import turnpool_workers.celery.worker
import turnpool_workers.main

# Of a dead worker is told within so many seconds.
LOOK_SECONDS = 0.1

IMPORTED = (celery, kombu, turnpool_workers)


def main() -> None:
    """Fork until standard input ends."""
    living: set[int] = set()
    pending = b""
    while True:
        if select.select([0], [], [], LOOK_SECONDS)[0]:
            received = os.read(0, 65536)
            if not received:
                break
            *lines, pending = (pending + received).split(b"\n")
            for line in lines:
                living.add(pid := fork(json.loads(line)))
                tell(f"started {pid}")
        while living and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            living.discard(ended[0])
            tell(f"ended {ended[0]} {os.waitstatus_to_exitcode(ended[1])}")
    for pid in living:
        os.kill(pid, signal.SIGKILL)


def fork(order: dict[str, Any]) -> int:
    """Start a worker; gives its process id."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        for descriptor, (path, flags) in enumerate(
            ((os.devnull, os.O_RDONLY), *[(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)] * 2)
        ):
            opened = os.open(path, flags, 0o600)
            os.dup2(opened, descriptor)
            os.close(opened)
        os.environ.update(order["env"])
        time.sleep(order["sleep"])
        turnpool_workers.main.main()
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit: the nursery's own clean-up is not this process's.
        os._exit(status)


def tell(line: str) -> None:
    """Say something to who started the nursery."""
    print(line, flush=True)


if __name__ == "__main__":
    main()
