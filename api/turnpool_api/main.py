"""`turnpool-api`: the web process."""

from turnpool.console import Script, run

SCRIPT = Script("turnpool-api", "api", "Serve turnpool's HTTP API.", "turnpool_api.server")


def main() -> None:
    """Serve until SIGTERM or SIGINT; exit 0."""
    run(SCRIPT)


if __name__ == "__main__":
    main()
