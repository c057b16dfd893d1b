"""What it takes, by what things cost."""

from dataclasses import replace

import pytest

from bench.scale.costs import Cost, Costs
from bench.scale.model import (
    LOG_TTL,
    POD_BUSY,
    SESSION_TTL,
    STORE_BUSY,
    STORE_CPU,
    Model,
    Options,
    Traffic,
    all_at_once,
    conversations,
    fullest,
)
from bench.scale.valkey import Bytes, Fixed, Side
from turnpool_workers.attempt.writer import FLUSH_SHARE, MAX_INTERVAL

COSTS = Costs(
    {
        "api": Cost(turn=1e-3, second=0.1, event=5e-5, token=0, flush=1e-3),
        "worker": Cost(turn=1e-3, second=0.05, event=0, token=2e-5, flush=5e-3),
        "valkey": Cost(turn=4e-4, second=0, event=2e-5, token=0, flush=1e-3),
    },
    intervals=[(1, 0.1)],
    rss={},
    accepted=100,
)
SIZE = Bytes(log_turn=1000, log_event=200, log_token=5, record_turn=2000, record_token=10)
FIXED = Fixed(SIZE, client=Side(5e-5, 1e-5, 2e-5), server=Side(1e-5, 1e-6, 1e-5), wake_up=4e-5)
# 1,000 streams of 50 tokens a second, 5 in an event; an answer takes 4 s.
TRAFFIC = Traffic(sessions=3000, running=1000, turns=250, tokens=50_000)


def times(factor: float) -> Traffic:
    """As many times of everything."""
    return Traffic(*(factor * value for value in (3000, 1000, 250, 50_000)))


def model(**options: float) -> Model:
    """With these costs."""
    return Model(COSTS, FIXED, Options(**options))


@pytest.mark.slow
def test_what_streams_is_what_comes_times_how_long_it_takes() -> None:
    """Little's law; without pauses all sessions stream, at a token each 20 ms."""
    traffic, most = conversations(1000), all_at_once(1000)
    assert traffic.answer == pytest.approx(most.answer)
    assert most.running == pytest.approx(1000)
    assert most.tokens == pytest.approx(50_000, rel=0.01)
    seconds = 0.02 + 0.02 * traffic.answer
    assert traffic.running == pytest.approx(traffic.turns * seconds)
    assert 0.2 < traffic.running / 1000 < 0.5


def test_one_server_costs_what_was_measured() -> None:
    """By hand, and nothing for partitions, of which it has one."""
    plan = model().with_shards(TRAFFIC, 1)
    # 250 x 0.4 ms, 10,000 x 20 us, and five workers that flush ten times a second.
    assert plan.store == pytest.approx(
        {"turns": 0.1, "events": 0.2, "looks": 0, "flushes": 0.05, "claims": 0}
    )
    # 0.25 + 0.5 cores in parts of 0.6 - 0.1 - 0.01.
    assert plan.apis == 2
    assert model().with_shards(times(10), 1).apis == 16
    # 25 turns and 5,000 tokens a second, the process itself, ten flushes.
    assert model().worker_busy(TRAFFIC, 100, 1) == pytest.approx(0.025 + 0.1 + 0.05 + 0.05)
    assert plan.events == 10_000
    # Each takes 1.25 ms a second, so 400 would fit in 0.6 - 0.1: it is slots that a worker has no more of.
    assert (plan.slots, plan.workers, plan.keda) == (200, 5, 7)
    # 17 connections of an API, 20 of a worker.
    assert plan.connections == 2 * 17 + 5 * 20
    # 40 events and 200 tokens a turn.
    assert plan.log_bytes == pytest.approx(250 * (1000 + 40 * 200 + 200 * 5) * LOG_TTL)
    assert plan.record_bytes == pytest.approx(250 * (2000 + 200 * 10) * (LOG_TTL + SESSION_TTL))
    assert plan.broker_cores == pytest.approx(250 * 4e-5 + (5 + 2 / 2) * 1.1e-5)


def test_a_cluster_is_asked_in_every_partition() -> None:
    """A pipeline more for each shard more, a command more for each partition more."""
    plan = model().with_shards(TRAFFIC, 3)
    read, call = 2 * 1e-5 + 63 * 1e-6, 2 * 1e-5 + 63 * 1e-5
    assert plan.store["claims"] == pytest.approx(250 * 2 * read)
    assert plan.store["flushes"] == pytest.approx(plan.workers * 10 * (1e-3 + call))
    # Renewed, reaped, expired twice a second, topped up once; an API looks for two things each two seconds.
    assert plan.store["looks"] == pytest.approx(plan.workers * 7 * call + plan.apis * (call + read))
    # The same on the worker's side, which begins 25 of its 100 turns a second.
    busy = model().worker_busy(TRAFFIC, 100, 3) - model().worker_busy(TRAFFIC, 100, 1)
    assert busy == pytest.approx((7 + 10) * (2 * 5e-5 + 63 * 2e-5) + 25 * 2 * (2 * 5e-5 + 63 * 1e-5))
    assert model(claim_rounds=0).with_shards(TRAFFIC, 3).store["claims"] == 0
    less = model(looks=0, lease=6).with_shards(TRAFFIC, 3)
    assert less.store["looks"] == pytest.approx(less.workers * call + less.apis * read)


def test_a_worker_has_as_many_turns_as_fit() -> None:
    """Not one more, and its own part of a cluster counts."""
    dear = Model(replace(COSTS, of=COSTS.of | {"worker": Cost(1e-3, 0.1, 1e-4, 4e-5, 0)}), FIXED)
    on_one, on_many = (dear.with_shards(TRAFFIC, shards).slots for shards in (1, 64))
    assert on_many < on_one < 200
    for slots, shards in ((on_one, 1), (on_many, 64)):
        assert dear.worker_busy(TRAFFIC, slots, shards) <= POD_BUSY
        assert dear.worker_busy(TRAFFIC, slots + 1, shards) > POD_BUSY


def test_flushes_to_many_shards_wait_longer() -> None:
    """A part of the time at most goes to flushing, but no text waits longer than the longest interval."""
    quick = Model(replace(COSTS, intervals=[(1, 0.025)]), FIXED)
    assert quick.interval(200, 1) == 0.025
    assert quick.interval(200, 64) == pytest.approx(FLUSH_SHARE * 63 * 7e-5)
    assert Model(COSTS, FIXED, Options(flush=0.3)).interval(200, 1) == 0.3
    slow = Model(quick.costs, replace(FIXED, client=Side(1, 1, 1)))
    assert slow.interval(200, 64) == MAX_INTERVAL


def test_there_are_no_more_shards_than_needed_and_than_partitions() -> None:
    """The first number that will do, by CPU and memory; 64 where none does."""
    assert model().plan(TRAFFIC).shards == 1
    plan = model().plan(times(5))
    assert 1 < plan.shards < 64
    assert plan.fits()
    assert not model().with_shards(times(5), plan.shards - 1).fits()
    huge = model().plan(times(1000))
    assert huge.shards == 64
    assert not huge.fits()
    heavy = Model(COSTS, replace(FIXED, bytes=replace(SIZE, log_turn=1e6)))
    assert heavy.plan(TRAFFIC).shards > 20


def test_partitions_are_not_cut() -> None:
    """Forty shards carry no more than 32: one of them has two partitions, as each of these has."""
    assert [fullest(shards) for shards in (1, 3, 32, 40, 64)] == [64, 22, 2, 2, 1]
    assert model().room(TRAFFIC, 40).sessions < model().room(TRAFFIC, 32).sessions
    assert all(
        model().plan(times(factor)).shards in {1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 13} for factor in range(1, 9)
    )


def test_the_most_sessions_are_where_the_first_limit_is_reached() -> None:
    """With one server at half a core, and with any number of shards."""
    sessions, first, _ = model().room(TRAFFIC, 1)
    assert first == STORE_CPU
    assert sessions == pytest.approx(3000 * STORE_BUSY / 0.35)
    room = model().most(TRAFFIC)
    assert room.sessions > sessions
    plan = model().with_shards(times(room.sessions / TRAFFIC.sessions), room.shards)
    # The numbers of pods are whole.
    used = plan.limits[room.first] * (fullest(room.shards) if "store" in room.first else 1)
    assert used == pytest.approx(1, rel=0.1)


def test_the_broker_is_one_server() -> None:
    """Where nothing else is in the way it is, however many shards there are."""
    free = replace(FIXED, client=Side(0, 0, 0), server=Side(0, 0, 0), wake_up=1e-3)
    room = Model(COSTS, free).most(TRAFFIC)
    assert room.first == "CPU of the broker"
    assert room.sessions == pytest.approx(3000 * STORE_BUSY / 0.25)
