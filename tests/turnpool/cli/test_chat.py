"""`turnpool chat`, run as people run it."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.turnpool.cli.fake_api import Handler, accepted, answer, delta, event, serving, stream

pytestmark = pytest.mark.slow

TURNPOOL = str(Path(sys.executable).with_name("turnpool"))
DONE = event(9, "completed", output="")


def chat(url: str, lines: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Chat through a pipe."""
    return subprocess.run(
        [TURNPOOL, "chat", "demo", "--url", url, *options],
        input=lines,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_each_line_of_a_pipe_gets_its_answer() -> None:
    """Answers go to standard output, everything else to standard error."""
    script = [
        accepted("demo.1"),
        stream(event(1, "queued", position=2), delta(2, "Salt"), delta(3, "."), DONE),
        accepted("demo.2"),
        stream(delta(2, "Yes."), DONE),
    ]
    with serving(*script) as api:
        result = chat(api.url, "Why?\n\nReally?\n", "--agent", "chat")
    assert result.stdout == "Salt.\nYes.\n"
    assert "queued, 2 ahead" in result.stderr
    assert result.returncode == 0
    assert [body for body in api.bodies if body] == [
        {"input": "Why?", "agent": "chat"},
        {"input": "Really?", "agent": "chat"},
    ]


def test_a_restart_is_told_and_drops_what_does_not_stand() -> None:
    """The answer that stands is whole on the last line."""
    script = [
        accepted(),
        stream(
            delta(1, "one two"),
            event(2, "restarted", reason="worker_lost", keep=3),
            delta(3, " three"),
            DONE,
        ),
    ]
    with serving(*script) as api:
        result = chat(api.url, "count\n")
    assert result.stdout.splitlines()[-1] == "one three"
    assert "worker was lost" in result.stderr


def test_a_failed_turn_makes_the_exit_status_1() -> None:
    """A script that pipes into it can tell."""
    failed = event(2, "failed", error={"code": "provider", "message": "The model is away."})
    with serving(accepted(), stream(delta(1, "So"), failed)) as api:
        result = chat(api.url, "hi\n")
    assert result.returncode == 1
    assert "The model is away." in result.stderr


def test_a_refused_turn_is_one_clear_line() -> None:
    """What the API says is shown, without a traceback."""
    with serving(answer(422, {"detail": "There is no agent 'x'; there are: chat."})) as api:
        result = chat(api.url, "hi\n")
    assert result.returncode == 1
    assert result.stderr.strip() == "There is no agent 'x'; there are: chat."


def test_what_the_server_says_cannot_steer_the_terminal() -> None:
    """Neither with control characters nor with the marks of the library that prints it."""
    wild = "\x1b]0;title\x07[bold]:bug:\x9b2J"
    script = [
        accepted("demo.1"),
        stream(
            delta(1, "So"),
            event(2, "tool_call", call_id="1", name=wild, arguments=wild),
            event(3, "restarted", reason=wild, keep=2),
            event(4, "failed", error={"code": "provider", "message": wild}),
        ),
        answer(422, {"detail": wild}),
    ]
    with serving(*script) as api:
        result = chat(api.url, "hi\nho\n")
    harmless = "]0;title[bold]:bug:2J"
    assert result.stderr.splitlines() == [
        f"{harmless}({harmless})",
        f"{harmless}; the answer goes on",
        f"The turn failed: {harmless}",
        harmless,
    ]


def test_ctrl_c_cancels_the_answer_that_streams() -> None:
    """The turn is cancelled through the API, and its end is awaited and shown."""
    cancelled = threading.Event()

    def cancel(handler: Handler) -> None:
        handler.send_json(202, {})
        cancelled.set()

    script = [
        accepted("demo.1"),
        # It never ends by itself; after the cut comes the cancel, and then the rest of the stream.
        stream(delta(1, "It all "), then=cancelled.wait),
        cancel,
        stream(event(2, "cancelled", output="It all ")),
    ]
    with serving(*script) as api:
        process = subprocess.Popen(
            [TURNPOOL, "chat", "demo", "--url", api.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"Tell me\n")
        process.stdin.flush()
        assert process.stdout.read(7) == b"It all "
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert ("POST", "/v1/turns/demo.1/cancel") in [(method, path) for method, path, _ in api.seen]
    assert b"cancelled" in errors
