"""Accepting turns (`lua/submit.lua`)."""

from collections.abc import Callable

import pytest

from turnpool.errors import SessionBusyError
from turnpool.models import NewTurn, OnBusy
from turnpool.store import Store

pytestmark = pytest.mark.anyio


async def test_the_first_turn_is_ready_and_the_second_waits_behind_it(
    store: Store, new_turn: Callable[..., NewTurn]
) -> None:
    """Of two turns of a session only the first wakes a worker."""
    first = await store.submit(new_turn())
    second = await store.submit(new_turn())
    assert (first.turn_id, first.woken) == ("s.1", ("turns",))
    assert (second.turn_id, second.woken) == ("s.2", ())


async def test_reject_refuses_a_turn_while_another_has_not_ended(
    store: Store, new_turn: Callable[..., NewTurn]
) -> None:
    """on_busy reject names the turn that is in the way, and nothing is queued."""
    await store.submit(new_turn())
    with pytest.raises(SessionBusyError) as raised:
        await store.submit(new_turn(on_busy=OnBusy.REJECT))
    assert raised.value.turn_id == "s.1"
    assert (await store.queue_state("turns")).queued == 1
