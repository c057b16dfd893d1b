"""`turnpool-worker`: ends when it is told to, from its first moment on."""

import os
import signal


def main() -> None:
    """Run a worker until SIGTERM or SIGINT; exit 0 once it is drained."""
    # Until Celery has handlers of its own.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end_early)
    from workers.process import serve  # noqa: PLC0415 - takes a second, in which it may be told to stop

    serve()


def _end_early(*_: object) -> None:
    # Not sys.exit: what is being imported could catch that. Nothing runs yet that has to be closed.
    os._exit(0)


if __name__ == "__main__":
    main()
