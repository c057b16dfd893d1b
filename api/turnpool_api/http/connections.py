"""Open connections: how many there may be, and how long each may take."""

import asyncio
import ipaddress
import resource
from collections import Counter
from functools import lru_cache
from typing import Protocol

from turnpool.logs import get_logger
from turnpool.settings import Settings
from turnpool_api import metrics

log = get_logger(__name__)

# Seconds between two checks of all connections. One timer for all: thousands of timers that are set and
# cancelled with each request cost more than reading one number of each connection twice a second.
SWEEP_SECONDS = 0.5
# Descriptors for Redis, logs and the event loop.
RESERVED_DESCRIPTORS = 100
# Who has one IPv6 address usually has all 2**64 of its network.
IPV6_PREFIX = 64


class Timed(Protocol):
    """A connection with deadlines."""

    def check(self, now: float) -> None:
        """End what has taken too long; `now` is the loop's time."""


class Slot:
    """One connection's share of the limits."""

    def __init__(self, connections: "Connections", network: str) -> None:
        self._connections, self._network = connections, network
        self._released = False

    def release(self) -> None:
        """Give it back; more than once does no harm."""
        if not self._released:
            self._released = True
            self._connections.release(self._network)


class Connections:
    """All connections of this process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.open: set[Timed] = set()
        self._most = _most_connections(settings)
        self._by_network: Counter[str] = Counter()
        self._count = 0
        metrics.CONNECTIONS.set_function(lambda: self._count)

    def admit(self, address: str) -> Slot | None:
        """A slot for a connection from this address, or None if there are too many."""
        network = network_of(address)
        if self._count >= self._most:
            metrics.REFUSED_CONNECTIONS.labels("all").inc()
            return None
        if self._by_network[network] >= self.settings.max_connections_per_address:
            metrics.REFUSED_CONNECTIONS.labels("address").inc()
            return None
        self._count += 1
        self._by_network[network] += 1
        return Slot(self, network)

    def release(self, network: str) -> None:
        """A connection has ended."""
        self._count -= 1
        self._by_network[network] -= 1
        # Addresses of the past must not fill the memory.
        if not self._by_network[network]:
            del self._by_network[network]

    async def watch(self) -> None:
        """Check the deadlines of all connections, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = loop.time()
            for connection in tuple(self.open):
                connection.check(now)


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Who counts as one: an IPv4 address, or the network of an IPv6 address."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, IPV6_PREFIX), strict=False))
    return str(ip)


def _most_connections(settings: Settings) -> int:
    """As many as are set, or as the system's limit of open files allows, which is raised if it may be."""
    wanted = settings.max_connections + RESERVED_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY not in {soft, hard} and soft < wanted:
        soft = min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return settings.max_connections
    most = max(soft - RESERVED_DESCRIPTORS, 1)
    log.warning("few_descriptors", open_files=soft, max_connections=most)
    return most
