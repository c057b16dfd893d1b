"""An answer on the terminal, of which a part can be taken back."""

import shutil
from collections.abc import Callable
from typing import TextIO

from rich.cells import cell_len

_CONTROLS = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {0x09, 0x0A})


def plain(text: str) -> str:
    """Text of a model or a server, which must not steer the terminal.

    It is without control characters but tab and line feed.
    """
    return text.translate(_CONTROLS)


class Transcript:
    """Writes an answer as it comes."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._erasable = True
        self._line_open = False
        self.text = ""

    def write(self, text: str) -> None:
        """Add text to the answer."""
        self.text += text
        self._show(text)

    def interrupt(self, announce: Callable[[], None]) -> None:
        """Say something in the midst of the answer, which goes on below it."""
        if self._output.isatty():
            self.end()
            self._erasable = not self.text
        announce()

    def restart(self, keep: int, announce: Callable[[], None]) -> None:
        """Take back all but the first `keep` characters, say so, and show again what stands.

        A pipe cannot be taken back: there what stands is written again, on a new line.
        """
        shown, self.text = self.text, self.text[:keep]
        if self._output.isatty():
            erase = _erase(plain(shown), *shutil.get_terminal_size())
            self._output.write(erase if self._erasable else "\n")
        elif keep < len(shown):
            self._output.write("\n")
        else:
            announce()
            return
        self._output.flush()
        self._line_open = False
        announce()
        self._show(self.text)

    def end(self) -> None:
        """End the answer's last line."""
        if self._line_open:
            self._show("\n")

    def _show(self, text: str) -> None:
        if text:
            self._output.write(plain(text))
            self._output.flush()
            self._line_open = not text.endswith("\n")


def _erase(text: str, columns: int, lines: int) -> str:
    """Return what moves the cursor to the start of `text` and clears from there.

    What has scrolled away cannot be erased: then the answer begins anew on a line of its own.
    """
    rows = sum(max(1, -(-cell_len(line.expandtabs()) // columns)) for line in text.split("\n"))
    if rows > lines:
        return "\n"
    up = f"\x1b[{rows - 1}A" if rows > 1 else ""
    return f"\r{up}\x1b[J"
