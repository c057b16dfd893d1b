"""Health check of the image: exit 0 if a GET on this container's own port is answered with 200.

Run as `python -IS probe.py PORT PATH`. http.client and not urllib: a proxy in the environment
could not reach this container's loopback address.
"""

import http.client
import sys

SECONDS = 2  # less than the checks' own timeout, so that the reason is in their log


def main(port: str, path: str) -> None:
    """Ask, and end with the reason where the answer is not 200."""
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=SECONDS)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"{path}: {error}")
    if status != http.client.OK:
        sys.exit(f"{path}: {status}")


if __name__ == "__main__":
    main(*sys.argv[1:])
