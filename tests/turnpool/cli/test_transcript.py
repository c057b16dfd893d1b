"""What a person sees of an answer."""

import io
import os

import pytest

from turnpool.cli.transcript import Transcript


class Terminal(io.StringIO):
    """A terminal of ten columns and five lines that understands what Transcript writes."""

    def isatty(self) -> bool:
        """Say that it is one."""
        return True

    def screen(self) -> list[str]:
        """Return the lines that a person sees."""
        rows, row, column = [""], 0, 0
        rest = self.getvalue()
        while rest:
            if rest.startswith("\x1b["):
                number, command = rest[2:-1], ""
                end = next(i for i, c in enumerate(rest[2:], 2) if c.isalpha())
                number, command = rest[2:end], rest[end]
                if command == "A":
                    row = max(row - int(number), 0)
                else:
                    rows[row:] = [rows[row][:column]]
                rest = rest[end + 1 :]
                continue
            character, rest = rest[0], rest[1:]
            if character == "\r":
                column = 0
                continue
            if character == "\n" or column == 10:
                row, column = row + 1, 0
                rows += [""] * (row + 1 - len(rows))
            if character != "\n":
                rows[row] = rows[row][:column] + character + rows[row][column + 1 :]
                column += 1
        return rows


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    monkeypatch.setenv("LINES", "5")


@pytest.mark.parametrize(
    ("text", "keep", "seen"),
    [
        ("one two", 3, ["note", "one"]),
        ("one two", 0, ["note", ""]),
        ("one two three four", 7, ["note", "one two"]),
        ("0123456789", 4, ["note", "0123"]),
        ("a\nb\n", 1, ["note", "a"]),
        ("all of it", 9, ["note", "all of it"]),
    ],
)
def test_a_restart_takes_back_what_does_not_stand(text: str, keep: int, seen: list[str]) -> None:
    """On a terminal only the note and the kept text are left, wherever lines wrap."""
    terminal = Terminal()
    transcript = Transcript(terminal)
    transcript.write(text)
    transcript.restart(keep, lambda: print("note", file=terminal))
    assert terminal.screen() == seen
    assert transcript.text == text[:keep]


def test_what_has_scrolled_away_is_shown_again_below() -> None:
    """A text higher than the terminal cannot be erased, so what stands is written anew."""
    terminal = Terminal()
    transcript = Transcript(terminal)
    transcript.write("1\n2\n3\n4\n5\n6")
    transcript.restart(3, lambda: print("note", file=terminal))
    assert terminal.screen() == ["1", "2", "3", "4", "5", "6", "note", "1", "2"]


def test_a_note_in_between_is_not_erased() -> None:
    """After a note the answer goes on below it, and a restart leaves the note alone."""
    terminal = Terminal()
    transcript = Transcript(terminal)
    transcript.write("one")
    transcript.interrupt(lambda: print("note", file=terminal))
    transcript.write(" two")
    transcript.restart(3, lambda: print("again", file=terminal))
    assert terminal.screen() == ["one", "note", " two", "again", "one"]


def test_a_pipe_gets_what_stands_again_on_a_new_line() -> None:
    """What went down a pipe cannot be taken back, so it is not joined with what follows."""
    pipe = io.StringIO()
    transcript = Transcript(pipe)
    transcript.write("one two")
    transcript.restart(3, lambda: None)
    transcript.write(" three")
    transcript.end()
    assert pipe.getvalue() == "one two\none three\n"


def test_a_pipe_gets_nothing_twice_when_all_stands() -> None:
    """An answer that goes on from its last token is one text."""
    pipe = io.StringIO()
    transcript = Transcript(pipe)
    transcript.write("one two")
    transcript.restart(7, lambda: None)
    transcript.write(" three")
    assert pipe.getvalue() == "one two three"


def test_a_model_cannot_steer_the_terminal() -> None:
    """Escape sequences lose their control characters; tabs and line feeds stay."""
    pipe = io.StringIO()
    Transcript(pipe).write("\x1b]0;title\x07a\tb\nc\x9b2J\r")
    assert pipe.getvalue() == "]0;titlea\tb\nc2J"
    assert os.linesep in pipe.getvalue()
