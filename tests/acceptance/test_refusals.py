"""A server that refuses: the pool keeps few connections meanwhile, and goes on after it."""

from pathlib import Path

import pytest

from tests.acceptance.refusals import REFUSALS, refused_pool

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

# Without care a worker opens a dozen a second: far more than these.
SECONDS = 8
MAX_SOCKETS = 20
MAX_LINES_A_SECOND = 30


@pytest.mark.parametrize("name", REFUSALS)
async def test_turns_go_on_soon_after_a_refusal(tmp_path: Path, name: str) -> None:
    """Whatever the server refuses. `python -m tests.acceptance.refusals` measures minutes of it."""
    async with refused_pool(tmp_path) as pool:
        before = pool.lines()
        after = await pool.refuse(REFUSALS[name], SECONDS)
        assert after < 5
        assert pool.worker.status is None
        assert max(pool.seen.sockets.values()) < MAX_SOCKETS
        assert pool.seen.clients < 2 * MAX_SOCKETS
        for log, lines in pool.lines().items():
            assert lines - before[log] < SECONDS * MAX_LINES_A_SECOND
