"""Fixtures of tests with real processes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.acceptance.processes import Pool
from tests.acl import ENABLED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder start real processes."""
    for item in items:
        if "acceptance" in item.path.parts:
            item.add_marker(pytest.mark.acceptance)


@pytest.fixture
async def pool(tmp_path: Path, redis_url: str) -> AsyncIterator[Pool]:
    """A pool without processes yet; all it starts end with the test."""
    pool = Pool(tmp_path, redis_url)
    yield pool
    await pool.close()
    if ENABLED:
        async with Redis.from_url(redis_url) as redis:
            refused = [entry for entry in await redis.acl_log() if entry["username"] == "turnpool"]
            await redis.acl_log_reset()
            assert not refused
