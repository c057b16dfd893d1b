"""Reading of server-sent events, by the standard and as providers send them.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
Two deviations: an event at the end of the stream counts without its blank line, since some providers leave
that out; and an event has a largest size.
"""

from collections.abc import Iterator
from typing import NamedTuple

BOM = b"\xef\xbb\xbf"
# Bytes of one event. A whole answer is smaller; a provider that sends more would fill the worker's memory.
MAX_EVENT_BYTES = 16 * 1024 * 1024


class EventTooLargeError(Exception):
    """An event is over MAX_EVENT_BYTES."""

    def __init__(self) -> None:
        super().__init__(f"an event of over {MAX_EVENT_BYTES} bytes")


class SseEvent(NamedTuple):
    """An event that has data; its name is empty where the stream gives none."""

    name: bytes
    data: bytes


class SseDecoder:
    """Turns bytes, cut anywhere, into events."""

    def __init__(self) -> None:
        # The beginning of a line without its end, in pieces: joining them each time costs the square.
        self._line: list[bytes] = []
        self._name = b""
        self._data: list[bytes] = []
        self._size = 0
        self._after_cr = False

    def feed(self, data: bytes) -> Iterator[SseEvent]:
        """The events that these bytes complete. Raises EventTooLargeError."""
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
        self._after_cr = data.endswith(b"\r")
        self._size += len(data)
        if self._size > MAX_EVENT_BYTES:
            raise EventTooLargeError
        if b"\n" not in data and b"\r" not in data:
            self._line.append(data)
            return
        # Of bytes, unlike of text, this splits at CR, LF and CRLF only.
        lines = b"".join((*self._line, data)).splitlines(keepends=True)
        self._line.clear()
        if not lines[-1].endswith((b"\n", b"\r")):
            self._line.append(lines.pop())
        for line in lines:
            if event := self._read(line.rstrip(b"\r\n")):
                yield event
        # What is left of these bytes belongs to an event that has not ended.
        self._size = sum(map(len, (*self._line, *self._data)))

    def close(self) -> SseEvent | None:
        """The event that the end of the stream completes, if there is one."""
        self._read(b"".join(self._line))
        return self._end()

    def _read(self, line: bytes) -> SseEvent | None:
        if not line:
            return self._end()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value
        return None

    def _end(self) -> SseEvent | None:
        event = SseEvent(self._name, b"\n".join(self._data))
        self._name = b""
        self._data.clear()
        # Events without data (`retry:`, `event: ping`) are no events to the standard either.
        return event if event.data.strip() else None
