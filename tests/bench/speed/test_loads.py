"""What is asked of a server."""

import asyncio
import contextlib
import random
import re
import statistics
import time

import pytest

from bench.speed.loads import ANSWER, LOADS, MAX_ANSWER, THINKING, TURNS, arrivals, shape, steady
from bench.speed.servers import Server
from bench.speed.streams import LONGEST, TURNPOOL, Told
from bench.speed.submits import told_by


def test_conversations_have_the_documented_shape() -> None:
    """Medians as they say, a tail of long answers, and the same each time."""
    shapes, again = ([shape(random.Random(n)) for n in range(2000)] for _ in range(2))  # noqa: S311 - same each time
    assert shapes == again
    turns = [turn for each in shapes for turn in each]
    tokens, pauses = ([turn[column] for turn in turns] for column in (0, 1))
    assert 0.95 < statistics.median(tokens) / ANSWER[0] < 1.05
    assert 0.95 < statistics.median(pauses) / THINKING[0] < 1.05
    assert statistics.median(map(len, shapes)) == TURNS[0]
    assert min(tokens) >= 1
    assert max(tokens) == MAX_ANSWER


def test_loads_grow() -> None:
    """Memory of a large load is not counted for a smaller one after it."""
    sized = [name for name in LOADS if {"at", "for"} & set(name.split())]
    sessions = [int(name.split()[0]) for name in sized]
    assert sessions == sorted(sessions)
    assert len(sessions) > 6


def test_arrivals_are_spread_over_the_time() -> None:
    """All of them come in it, in order and at the same times in each run, as many in each part of it."""
    times = arrivals(2000, 4)
    assert times == arrivals(2000, 4) == sorted(times)
    assert all(430 < sum(second <= time < second + 1 for time in times) < 570 for second in range(4))


def test_a_submitted_turn_is_told_by_its_log() -> None:
    """Its first text counts, on the client's clock; a text with a hole is not whole."""
    posted = Told(100.0, 0.01, LONGEST, 0.01, [], 0, whole=False)
    events = [
        {"type": "turn.queued", "created_at": 1100.1},
        {"type": "turn.output_text.delta", "created_at": 1100.25, "text": "w0 "},
        {
            "type": "turn.output_text.delta",
            "created_at": 1100.5,
            "text": "".join(f"w{k} " for k in range(1, 100)),
        },
    ]
    told = told_by(posted, events, 1000.0)
    assert (round(told.ttft, 3), told.whole) == (0.25, True)
    assert not told_by(posted, events[:2], 1000.0).whole
    assert told_by(posted, [], 1000.0).ttft == LONGEST


async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each post on a connection with two words."""
    with contextlib.suppress(asyncio.IncompleteReadError):
        while head := await reader.readuntil(b"\r\n\r\n"):
            found = re.search(rb"Content-Length: (\d+)", head)
            assert found
            await reader.readexactly(int(found[1]))
            frames = b"event: turn.output_text.delta\ndata: w0 w1 \n\nevent: turn.completed\n\n"
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(frames), frames))
    writer.close()


@pytest.mark.anyio
async def test_sessions_go_on_each_on_one_connection() -> None:
    """Each asks again as soon as it has its answer, until the time is up."""
    connections: list[object] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await answer_all(reader, writer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        server = Server(pids={}, ports=[port], dialect=TURNPOOL)
        began = time.monotonic()
        told = [stream.told() for stream in await steady(server, "s", 3, 0.2, tokens=2)]
        assert time.monotonic() - began >= 0.2
    assert len(connections) == 3
    assert len(told) > 6
    assert all(each.whole for each in told)


@pytest.mark.anyio
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 503 \r\n\r\n2\r\n{}\r\n0\r\n\r\n"])
async def test_a_session_that_is_cut_off_or_refused_is_an_error_and_ends(answer: bytes) -> None:
    """Its turn is not whole, and it does not ask for ever."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                if not answer:
                    break
                writer.write(answer)
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        server = Server(pids={}, ports=[port], dialect=TURNPOOL)
        told = [stream.told() for stream in await steady(server, "s", 3, 60, tokens=2)]
    assert [each.whole for each in told] == [False] * 3
