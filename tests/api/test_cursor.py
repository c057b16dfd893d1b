"""The place in a session's event stream (`turnpool_api/streams/cursor.py`)."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnpool.events import Kind
from turnpool_api.streams.cursor import BadEventIdError, Cursor

Place = tuple[int, int]
"""Turn and seq."""


def frame(seq: int, kind: Kind = Kind.DELTA) -> bytes:
    """An event of a log."""
    return f"id: {seq}\nevent: {kind}\ndata: {{}}\n\n".encode()


@pytest.mark.parametrize("text", ["0", "7", "7,6:41,7:1", "999999999999999", "3,1:0"])
def test_an_id_is_read_as_it_was_written(text: str) -> None:
    """Encoding is the inverse of decoding."""
    assert Cursor.decode(text).encode() == text.encode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "-1",
        "1,",
        ",1:1",
        "1,1",
        "1,1:",
        "1,:1",
        "1,1:1,",
        "1;1:1",
        "1 ",
        "1\n",
        "1" * 16,
        "¹",
        "\u0661",
    ],
)
def test_what_is_no_id_of_ours_is_refused(text: str) -> None:
    """Nothing else is read, and nothing is guessed."""
    with pytest.raises(BadEventIdError):
        Cursor.decode(text)


def test_a_new_stream_starts_at_the_beginning_of_each_unfinished_turn() -> None:
    """Ended turns are not told again; what has not ended is, from its first event."""
    cursor = Cursor.at(5, [4, 5])
    assert cursor.encode() == b"5,4:0,5:0"
    assert list(cursor.unfinished(7)) == [4, 5, 6, 7]
    assert not cursor.is_next(3, 9)
    assert cursor.is_next(4, 1)
    assert cursor.is_next(6, 1)


def test_an_ended_turn_leaves_the_id() -> None:
    """So that the id stays short, and the turn is not read again."""
    cursor = Cursor.decode("2,1:5,2:1")
    assert cursor.advance(1, frame(6, Kind.COMPLETED))
    assert cursor.encode() == b"2,2:1"
    assert not cursor.is_next(1, 6)


def test_a_gap_is_seen() -> None:
    """A seq that jumps, a turn that begins in its middle, a turn that was left out."""
    cursor = Cursor.decode("2,2:3")
    assert not cursor.missing(2, 4)
    assert cursor.missing(2, 5)
    assert not cursor.missing(3, 1)
    assert cursor.missing(3, 2)
    assert cursor.missing(4, 1)
    assert not cursor.missing(1, 9)


@pytest.mark.parametrize("kind", [Kind.RESTARTED, Kind.COMPLETED])
def test_a_log_that_was_cut_is_told_from_where_it_says_what_stands(kind: Kind) -> None:
    """Till then the id is still the client's: what is written again under ids that it has is not told."""
    cursor = Cursor.decode("2,1:9,2:1")
    assert not cursor.go_back(1, 9)
    assert cursor.go_back(1, 5)
    assert not cursor.missing(1, 6)
    assert not cursor.advance(1, frame(6))
    assert cursor.advance(2, frame(2))
    assert cursor.encode() == b"2,1:9,2:2"
    assert cursor.advance(1, frame(7, kind))
    assert cursor.encode() == (b"2,2:2" if kind is Kind.COMPLETED else b"2,1:7,2:2")


def test_a_session_that_starts_anew_is_told_from_its_start() -> None:
    """Numbers over the newest turn's are of a life before; the id counts again from nothing."""
    cursor = Cursor.decode("7,6:3")
    cursor.know(2)
    assert list(cursor.unfinished(2)) == [1, 2]


def test_a_turn_that_the_server_has_lost_is_forgotten() -> None:
    """A stream that has seen the session goes on: no other turn is told again."""
    cursor = Cursor.decode("7,6:3,7:2")
    cursor.know(7)
    assert cursor.encode() == b"7,6:3,7:2"
    cursor.know(6)
    assert cursor.encode() == b"6,6:3"
    assert list(cursor.unfinished(7)) == [6, 7]


@st.composite
def histories(draw: st.DrawFn) -> list[Place]:
    """Events of overlapping turns as they come to be: a turn begins after the one before has begun."""
    left = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    done = [0] * len(left)
    history: list[Place] = []
    while any(done[i] < left[i] for i in range(len(left))):
        begun = sum(1 for seq in done if seq)
        ready = [i for i in range(min(begun + 1, len(left))) if done[i] < left[i]]
        i = draw(st.sampled_from(ready))
        done[i] += 1
        history.append((i + 1, done[i]))
    return history


class Client:
    """What a client has got, with the id of the last event; the server side is the code under test."""

    def __init__(self, history: list[Place]) -> None:
        self.last = {n: max(seq for m, seq in history if m == n) for n, _ in history}
        self.got: list[Place] = []
        self.ids = [b"0"]

    def send(self, cursor: Cursor, n: int, seq: int) -> None:
        """One event is sent."""
        assert cursor.advance(n, frame(seq, Kind.COMPLETED if seq == self.last[n] else Kind.DELTA))
        self.got.append((n, seq))
        self.ids.append(cursor.encode())

    def read_log(self, cursor: Cursor, log: list[Place]) -> None:
        """As a stream does: each unfinished turn from its place on."""
        for n in cursor.unfinished(max((n for n, _ in log), default=0)):
            for seq in [seq for m, seq in log if m == n and seq > cursor.seq(n)]:
                self.send(cursor, n, seq)
            cursor.seen(n)

    def hear(self, cursor: Cursor, n: int, seq: int) -> None:
        """As a live stream does: nothing may be missing, what is known is passed over."""
        assert not cursor.missing(n, seq)
        if cursor.is_next(n, seq):
            self.send(cursor, n, seq)

    def check(self, history: list[Place]) -> None:
        """All events, each once, each turn's in order."""
        assert sorted(self.got) == sorted(history)
        for n in self.last:
            assert [seq for m, seq in self.got if m == n] == list(range(1, self.last[n] + 1))


@pytest.mark.slow
@given(histories(), st.data())
def test_from_any_cut_the_log_gives_exactly_the_rest(history: list[Place], data: st.DataObject) -> None:
    """A stream that is cut after any event and reads the log later has every event once."""
    client, cursor = Client(history), Cursor.decode("0")
    cut = data.draw(st.integers(0, len(history)))
    for n, seq in history[:cut]:
        client.hear(cursor, n, seq)
    client.read_log(Cursor.decode(client.ids[-1].decode()), history)
    client.check(history)


class Visit(NamedTuple):
    """How one connection goes: how far the log and then live events go on, and what does not arrive of it."""

    log: int
    overlap: int
    live: int
    lost: int


VISITS = st.lists(
    st.builds(Visit, st.integers(0, 4), st.integers(0, 3), st.integers(0, 4), st.integers(0, 3)), max_size=5
)


@pytest.mark.slow
@given(histories(), VISITS)
def test_any_cuts_between_log_and_live_lose_nothing(history: list[Place], visits: list[Visit]) -> None:
    """Cut again and again, also within what is read from the log; live events may overlap with the log's."""
    client, now = Client(history), 0
    for visit in visits:
        cursor = Cursor.decode(client.ids[-1].decode())
        read = min(now + visit.log, len(history))
        client.read_log(cursor, history[:read])
        now = min(read + visit.live, len(history))
        for n, seq in history[max(read - visit.overlap, 0) : now]:
            client.hear(cursor, n, seq)
        for _ in range(min(visit.lost, len(client.got))):
            client.got.pop()
            client.ids.pop()
    client.read_log(Cursor.decode(client.ids[-1].decode()), history)
    client.check(history)
