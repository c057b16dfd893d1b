"""An answer on the terminal, of which a part can be taken back."""

import os
from typing import TextIO

from rich.cells import cell_len

# What a model writes must not steer the terminal: all control characters but tab and line feed.
_CONTROLS = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {0x09, 0x0A})


class Transcript:
    """Writes an answer as it comes."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self.text = ""

    def write(self, text: str) -> None:
        """Add text to the answer."""
        self.text += text
        self._show(text)

    def keep(self, characters: int) -> None:
        """Take back all but the first `characters`; what stands is shown again where needed."""
        if characters >= len(self.text):
            return
        shown, self.text = self.text, self.text[:characters]
        if self._output.isatty():
            self._output.write(_erase(shown.translate(_CONTROLS), *os.get_terminal_size()))
        else:
            self._output.write("\n")
        self._show(self.text)

    def end(self) -> None:
        """End the answer's last line."""
        if self.text and not self.text.endswith("\n"):
            self._show("\n")

    def _show(self, text: str) -> None:
        self._output.write(text.translate(_CONTROLS))
        self._output.flush()


def _erase(text: str, columns: int, lines: int) -> str:
    """Return what moves the cursor to the start of `text` and clears from there.

    What has scrolled away cannot be erased: then the answer begins anew on a line of its own.
    """
    rows = sum(max(1, -(-cell_len(line.expandtabs()) // columns)) for line in text.split("\n"))
    if rows > lines:
        return "\n"
    up = f"\x1b[{rows - 1}A" if rows > 1 else ""
    return f"\r{up}\x1b[J"
