"""What agents say of themselves."""

from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from turnpool.agent import UNDER_WAY, Agent, Event, Steps, Turn, can_continue, continues
from turnpool.errors import StepInterruptedError


def new_agent() -> Agent:
    """One that no test has marked yet."""

    async def agent(turn: Turn) -> AsyncIterator[str | Event]:
        yield turn.id

    return agent


def _broken() -> bool:
    raise RuntimeError("no key")


def test_an_agent_says_whether_it_can_continue() -> None:
    """One that is not marked cannot; `when` is asked each time."""
    answers = [True, False]
    assert not can_continue(new_agent())
    agent = continues(when=lambda: answers.pop(0))(new_agent())
    assert [can_continue(agent), can_continue(agent)] == [True, False]
    assert can_continue(continues()(new_agent()))


def test_one_that_cannot_say_whether_it_can_does_not() -> None:
    """It would stop the claims of all agents of its worker; that it failed is logged."""
    agent = continues(when=_broken)(new_agent())
    with capture_logs() as lines:
        assert can_continue(agent) is False
    assert [(line["event"], line["agent"]) for line in lines] == [("can_continue_failed", "agent")]


async def _never(key: str, result: bytes | None) -> bytes:
    raise AssertionError(key, result)


def test_a_step_is_called_or_taken_back() -> None:
    """A thread that comes to it late does not call what the next attempt will."""
    steps = Steps(_never)
    steps.marked.update({"early", "late"})
    steps.begin("early", "charge")
    assert steps.take_back() == ["late"]
    with pytest.raises(StepInterruptedError):
        steps.begin("late", "charge")
    assert steps.recorded == {"early": UNDER_WAY}


def test_a_step_that_is_marked_anew_while_it_begins_is_called_once() -> None:
    """By an agent that gave up waiting for it; nobody knows what the first call does."""
    steps = Steps(_never)
    steps.marked.add("key")
    steps.begin("key", "charge")
    steps.marked.add("key")
    with pytest.raises(StepInterruptedError):
        steps.begin("key", "charge")
