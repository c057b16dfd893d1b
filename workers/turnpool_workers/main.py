"""`turnpool-worker` and `turnpool-flower`."""

from turnpool.console import Script, run

WORKER = Script("turnpool-worker", "workers", "Run turns.", "turnpool_workers.celery.worker")
FLOWER = Script("turnpool-flower", "workers", "Show the workers in Flower.", "turnpool_workers.flower")


def main() -> None:
    """Run a worker until SIGTERM or SIGINT; exit 0 once it is drained."""
    run(WORKER)


def flower() -> None:
    """Serve Flower until SIGTERM or SIGINT."""
    run(FLOWER)


if __name__ == "__main__":
    main()
