"""Turns submitted as fast as possible, without a stream; how soon each began is read from its log."""

import asyncio
import time
from itertools import cycle
from typing import Any

import httpx

from bench.speed.figures import Run, answered
from bench.speed.loads import PARAMS
from bench.speed.servers import Server
from bench.speed.streams import LONGEST, TURNPOOL, Stream, Told, follow, request

SUBMITS = "1000 submitted"
TURNS = 1000
# Requests at once while the logs are read; nothing is measured then.
READERS = 20


async def submits(server: Server, name: str) -> Run:
    """All posted at once, each on a connection of its own."""
    sessions = [f"{name}-{number}" for number in range(TURNS)]
    streams = [_submit(session) for session in sessions]
    # The server's clock, which its events carry, is the client's: they are on one machine.
    offset = time.time() - time.monotonic()
    await asyncio.gather(*(follow(server.port(n), stream) for n, stream in enumerate(streams)))
    turns = asyncio.Semaphore(READERS)
    async with httpx.AsyncClient(timeout=LONGEST) as client:
        told = await asyncio.gather(
            *(
                _told(client, f"http://127.0.0.1:{port}/v1/turns/{session}.1", stream.told(), offset, turns)
                for session, stream, port in zip(sessions, streams, cycle(server.ports), strict=False)
            )
        )
    return answered(told)


def _submit(session: str) -> Stream:
    path, body = TURNPOOL.request(session, PARAMS)
    return Stream(request(path, body, "Connection: close"), PARAMS["tokens"], TURNPOOL)


async def _told(
    client: httpx.AsyncClient, url: str, told: Told, offset: float, turns: asyncio.Semaphore
) -> Told:
    """What was told of the post, completed from the turn's log once it has ended."""
    async with turns:
        await client.get(url, params={"wait": 30})
        log = (await client.get(f"{url}/events", params={"follow": "false"})).json()
    return told_by(told, log.get("events", []), offset)


def told_by(told: Told, events: list[dict[str, Any]], offset: float) -> Told:
    """When the first text of the log was written, and whether all of it is there."""
    deltas = [event for event in events if event["type"] == "turn.output_text.delta"]
    text = "".join(event["text"] for event in deltas)
    whole = text == "".join(f"w{k} " for k in range(PARAMS["tokens"]))
    first = deltas[0]["created_at"] - offset - told.started if deltas else LONGEST
    return told._replace(ttft=first, whole=whole)
