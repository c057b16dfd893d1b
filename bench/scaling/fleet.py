"""Real worker processes as pods of a Deployment: started, drained, counted."""

import asyncio
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from turnpool.models import WorkerInfo


@dataclass
class Pod:
    """A worker process. Times by `time.monotonic`; it counts from when it is wanted until it is gone."""

    wanted_at: float
    pid: int = 0
    ready_at: float | None = None
    stopped_at: float | None = None
    ended_at: float | None = None
    status: int | None = None


class Fleet:
    """The pods. `start_seconds`: what a pod takes before its worker begins to start."""

    def __init__(self, folder: Path, env: Mapping[str, str], start_seconds: float) -> None:
        self._folder = folder
        self._env = dict(env)
        self._start_seconds = start_seconds
        self._coming: deque[Pod] = deque()
        self.pods: list[Pod] = []

    async def open(self) -> None:
        """Start the nursery, which imports everything once."""
        self._nursery = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bench.scaling.nursery",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._listening = asyncio.create_task(self._listen())

    async def close(self) -> None:
        """Kill what is left."""
        assert self._nursery.stdin  # noqa: S101 - it is a pipe
        self._nursery.stdin.close()
        await self._nursery.wait()
        await self._listening

    @property
    def live(self) -> list[Pod]:
        """What the HPA takes for replicas: those that start count, those that are being stopped do not."""
        return [pod for pod in self.pods if pod.stopped_at is None and pod.ended_at is None]

    @property
    def draining(self) -> int:
        """Pods that were told to stop and have not ended."""
        return sum(pod.stopped_at is not None and pod.ended_at is None for pod in self.pods)

    def scale(self, replicas: int, workers: list[WorkerInfo]) -> None:
        """Have so many: start pods, or stop those that run the fewest turns, as pod-deletion-cost has it."""
        live = self.live
        for _ in range(replicas - len(live)):
            self._start()
        running = {_pid(worker): worker.running for worker in workers}
        # As the ReplicaSet controller does: a pod that is not ready goes before all that are.
        live.sort(key=lambda pod: (pod.ready_at is not None, running.get(pod.pid, 0)))
        for pod in live[: max(len(live) - replicas, 0)]:
            pod.stopped_at = time.monotonic()
            if pod.pid:
                os.kill(pod.pid, signal.SIGTERM)

    def see(self, workers: list[WorkerInfo]) -> None:
        """Note which pods are ready by now."""
        known = {_pid(worker) for worker in workers}
        for pod in self.pods:
            if pod.ready_at is None and pod.pid in known:
                pod.ready_at = time.monotonic()

    def worker_seconds(self, start: float, end: float) -> float:
        """What they took between two moments."""
        return sum(max(min(pod.ended_at or end, end) - max(pod.wanted_at, start), 0) for pod in self.pods)

    def _start(self) -> None:
        pod = Pod(time.monotonic())
        self.pods.append(pod)
        self._coming.append(pod)
        log = self._folder / f"worker-{len(self.pods)}.log"
        order = {"env": self._env, "log": str(log), "sleep": self._start_seconds}
        assert self._nursery.stdin  # noqa: S101 - it is a pipe
        self._nursery.stdin.write(json.dumps(order).encode() + b"\n")

    async def _listen(self) -> None:
        assert self._nursery.stdout  # noqa: S101 - it is a pipe
        async for line in self._nursery.stdout:
            what, *numbers = line.decode().split()
            if what == "started":
                pod = self._coming.popleft()
                pod.pid = int(numbers[0])
                if pod.stopped_at is not None:
                    os.kill(pod.pid, signal.SIGTERM)
            else:
                pid, status = map(int, numbers)
                (pod,) = (pod for pod in self.pods if pod.pid == pid and pod.ended_at is None)
                pod.ended_at, pod.status = time.monotonic(), status


def _pid(worker: WorkerInfo) -> int:
    return int(worker.id.rpartition("-")[2])
