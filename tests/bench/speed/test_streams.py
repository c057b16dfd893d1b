"""What the load client makes of the bytes that came."""

from bench.speed.streams import LONGEST, TURNPOOL, tell

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


def delta(*words: int) -> bytes:
    """A frame of text, as a chunk."""
    text = "".join(f"w{word} " for word in words)
    return f'20\r\nevent: turn.output_text.delta\ndata: {{"text":"{text}"}}\n\n\r\n'.encode()


END = b'20\r\nevent: turn.completed\ndata: {"output":"w0 w1 w2 "}\n\n\r\n0\r\n\r\n'


def test_times_are_from_the_post() -> None:
    """The first byte, the first text, the pauses between pieces of text, the last byte."""
    pieces = [(10.1, HEAD), (10.3, delta(0)), (10.35, b": ping\n\n"), (10.8, delta(1, 2)), (11.0, END)]
    told = tell(10.0, pieces, 3, TURNPOOL)
    times = [told.accepted, told.ttft, *told.gaps, told.ended]
    assert [round(time, 3) for time in times] == [0.1, 0.3, 0.5, 1.0]
    assert (told.tokens, told.whole) == (3, True)


def test_what_is_missing_doubled_or_out_of_order_is_an_error() -> None:
    """The words count, not how many there are; the last event, which has all of them, does not."""
    for words in ([0, 1], [0, 1, 1], [0, 2, 1], [0, 1, 2, 3], []):
        assert not tell(0.0, [(0.1, HEAD + delta(*words) + END)], 3, TURNPOOL).whole
    assert not tell(0.0, [(0.1, b"HTTP/1.1 429 \r\n\r\n" + delta(0, 1, 2))], 3, TURNPOOL).whole


def test_a_text_cut_by_the_network_is_whole() -> None:
    """A word may come in two pieces."""
    answer = HEAD + delta(0, 1, 2)
    told = tell(0.0, [(0.1, answer[:-14]), (0.2, answer[-14:] + END)], 3, TURNPOOL)
    assert told.whole


def test_an_answer_that_never_came_took_the_longest_time() -> None:
    """It must not make the figures better."""
    told = tell(0.0, [], 3, TURNPOOL)
    assert (told.accepted, told.ttft, told.ended, told.whole) == (LONGEST, LONGEST, LONGEST, False)
