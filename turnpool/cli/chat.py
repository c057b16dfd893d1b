"""`turnpool chat`: talk to an agent in the terminal."""

import asyncio
import secrets
import signal
import sys
from contextlib import aclosing, suppress
from typing import Annotated, Any

import typer
from rich.console import Console

from turnpool.cli.client import ApiError, Client, Event
from turnpool.cli.options import Urls, make_client
from turnpool.cli.transcript import Transcript, plain
from turnpool.errors import TurnpoolError

with suppress(ImportError):
    import readline  # noqa: F401 - gives input() line editing and history

INTERRUPTED = 130  # what a shell says of a program that Ctrl-C ended
RESTART_REASONS = {
    "worker_lost": "its worker was lost",
    "drained": "its worker is being stopped",
    "retry": "the model's provider failed",
}


def chat(
    session: Annotated[
        str | None, typer.Argument(help="The session to go on with; a new one by default.")
    ] = None,
    url: Urls = None,
    agent: Annotated[str | None, typer.Option(help="The agent to talk to.")] = None,
) -> None:
    """Talk to an agent. Ctrl-C cancels an answer, and at the prompt it ends the chat."""
    session = session or f"chat-{secrets.token_hex(4)}"
    notes = Console(stderr=True, style="dim", highlight=False, markup=False, emoji=False, soft_wrap=True)
    if sys.stdin.isatty():
        notes.print(f"Session {session}. Ctrl-C cancels an answer, Ctrl-D ends.")
    with asyncio.Runner() as runner:
        client = make_client(url)
        conversation = Conversation(client, session, agent, notes)
        try:
            failed = _converse(runner, conversation)
        finally:
            runner.run(client.__aexit__(None, None, None))
    raise typer.Exit(1 if failed else 0)


def _converse(runner: asyncio.Runner, conversation: "Conversation") -> bool:
    """Answer line after line; return whether a turn failed that no person could see failing."""
    failed = False
    person = sys.stdin.isatty()
    while (line := _read_line(person)) is not None:
        if not line.strip():
            continue
        try:
            completed = runner.run(conversation.answer(line.rstrip("\n")))
        except TurnpoolError as error:
            if not person:
                raise
            conversation.say(error.message)
            completed = False
        failed = failed or not (completed or person)
    return failed


def _read_line(person: bool) -> str | None:  # noqa: FBT001 - the only argument
    if not person:
        return sys.stdin.readline() or None
    try:
        return input("> ")
    except (EOFError, KeyboardInterrupt):
        print()  # noqa: T201 - leaves the prompt's line
        return None


class Conversation:
    """One session and how its answers are shown."""

    def __init__(self, client: Client, session: str, agent: str | None, notes: Console) -> None:
        self._client = client
        self._session = session
        self._agent = agent
        self._notes = notes
        self._transcript = Transcript(sys.stdout)
        client.notify = self.say

    def say(self, note: str) -> None:
        """Tell the person something that is not part of an answer."""
        self._transcript.interrupt(lambda: self._notes.print(plain(note)))

    async def answer(self, text: str) -> bool:
        """Post a turn and show its answer as it comes; return whether it was completed."""
        self._transcript = Transcript(sys.stdout)
        turn_id = await self._client.post_turn(self._session, text, self._agent)
        with CancelOnInterrupt(self._client, turn_id, self):
            async with aclosing(self._client.events(turn_id)) as events:
                async for event in events:
                    self._show(event)
        return event.type == "turn.completed"

    def _show(self, event: Event) -> None:
        data, transcript = event.data, self._transcript
        match event.type:
            case "turn.queued" if data.get("position"):
                self.say(f"queued, {data['position']} ahead")
            case "turn.output_text.delta":
                transcript.write(data["text"])
            case "turn.tool_call":
                self.say(f"{data['name']}({data['arguments']})")
            case "turn.restarted":
                note = _restart_note(data)
                transcript.restart(data["keep"], lambda: self._notes.print(plain(note)))
            case "turn.completed" | "turn.failed" | "turn.cancelled":
                self._finish(event)

    def _finish(self, event: Event) -> None:
        if event.type == "turn.completed" and not self._transcript.text:
            self._transcript.write(event.data["output"])  # an agent need not stream
        self._transcript.end()
        if event.type == "turn.failed":
            self.say(f"The turn failed: {event.data['error']['message']}")
        if event.type == "turn.cancelled":
            self.say("cancelled")


def _restart_note(data: dict[str, Any]) -> str:
    reason = RESTART_REASONS.get(data["reason"], data["reason"])
    return f"{reason}; the answer {'goes on' if data['keep'] else 'starts over'}"


class CancelOnInterrupt:
    """While it is entered, Ctrl-C cancels the turn, and a second one ends the program."""

    def __init__(self, client: Client, turn_id: str, conversation: Conversation) -> None:
        self._client = client
        self._turn_id = turn_id
        self._conversation = conversation
        self._cancelling: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._loop.add_signal_handler(signal.SIGINT, self._interrupt)

    def __exit__(self, *_: object) -> None:
        self._loop.remove_signal_handler(signal.SIGINT)
        if self._cancelling is not None:
            self._cancelling.cancel()

    def _interrupt(self) -> None:
        if self._cancelling is not None:
            raise SystemExit(INTERRUPTED)
        self._cancelling = self._loop.create_task(self._cancel())

    async def _cancel(self) -> None:
        try:
            await self._client.cancel(self._turn_id)
        except ApiError as error:
            self._conversation.say(f"The turn could not be cancelled: {error.message}")
