"""The test plays the worker, so that it decides what happens when."""

from collections.abc import Sequence

from tests.conftest import wait_until
from turnpool.events import Entry, delta, members
from turnpool.models import Claim, Outcome
from turnpool.states import Status
from turnpool.store.store import Held, Store


class Run:
    """A claimed turn."""

    def __init__(self, store: Store, claim: Claim) -> None:
        self.store = store
        self.id = claim.turn.id
        self.scoped_id = claim.turn.scoped_id
        self.attempt = claim.turn.attempt
        self.seq = claim.turn.seq
        self.text = ""
        self.input = claim.turn.input

    @property
    def held(self) -> Held:
        """What the worker shows with each write."""
        return Held(self.scoped_id, self.attempt, self.seq)

    async def say(self, *texts: str) -> bool:
        """Add a delta for each text; whether the turn is still held."""
        return await self.append([delta(text) for text in texts], "".join(texts))

    async def append(self, entries: Sequence[Entry], text: str = "") -> bool:
        """Add events. Raises what the store says of its server."""
        (kept,) = await self.store.append([(self.held, entries)])
        if isinstance(kept, Exception):
            raise kept
        self.seq += len(entries)
        self.text += text
        return kept

    async def complete(self) -> None:
        """End as completed, with what was said."""
        fields = members(output=self.text, usage={"input_tokens": 1, "output_tokens": 2})
        answer = {"role": "assistant", "content": self.text}
        usage = {"input_tokens": 1, "output_tokens": 2}
        await self._settle(
            Outcome(Status.COMPLETED, fields, self.text, usage, messages=(*self.input, answer))
        )

    async def fail(self, code: str, message: str) -> None:
        """End as failed."""
        fields = members(error={"code": code, "message": message})
        await self._settle(Outcome(Status.FAILED, fields, error=(code, message)))

    async def cancelled(self) -> None:
        """End as cancelled, with what was said."""
        await self._settle(Outcome(Status.CANCELLED, members(output=self.text), self.text))

    async def _settle(self, outcome: Outcome) -> None:
        await self.store.settle(self.held, [], outcome)
        self.seq += 1


async def claim(store: Store, queue: str = "turns") -> Run:
    """Take the next turn; there must be one."""
    claimed, _ = await store.claim(queue, "w1")
    assert claimed is not None
    return Run(store, claimed)


async def claim_soon(store: Store) -> Run:
    """Take the next turn as soon as there is one."""
    found: list[Claim] = []

    async def one_is_ready() -> bool:
        claimed, _ = await store.claim("turns", "w1")
        found.extend([claimed] if claimed else [])
        return bool(found)

    await wait_until(one_is_ready)
    return Run(store, found[0])
