"""`helm test`: the API is ready, and every queue named on the command line has a worker."""  # noqa: INP001

import re
import sys
import time
from urllib.request import urlopen


def missing(api: str, queues: list[str]) -> str:
    """What is not there yet; empty once all is."""
    try:
        # http inside the cluster, from the chart itself.
        with urlopen(f"{api}/readyz", timeout=5), urlopen(f"{api}/metrics", timeout=5) as answer:  # noqa: S310
            metrics = answer.read().decode()
    except OSError as error:
        return f"{api}: {error}"
    sample = r'^turnpool_queue_workers\{(?:[^}]*,)?queue="([^"]+)"[^}]*\} ([0-9.]+)$'
    found = re.findall(sample, metrics, re.MULTILINE)
    workers = dict(found)
    idle = [queue for queue in queues if not float(workers.get(queue, 0))]
    return f"no worker on {', '.join(idle)}" if idle else ""


def main() -> None:
    """Wait up to 90 s, the time a pod may need to start."""
    api, *queues = sys.argv[1:]
    end = time.monotonic() + 90
    while lack := missing(api, queues):
        if time.monotonic() > end:
            sys.exit(lack)
        time.sleep(2)
    print(f"{api} is ready; workers on {', '.join(queues) or 'no queue that must have one'}")  # noqa: T201


if __name__ == "__main__":
    main()
