"""What clients are told of errors that hold other people's words."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.turnpool.scripts.kit import events, record
from tests.workers.conftest import Worker
from turnpool import redaction
from turnpool.agent import Event, Turn
from turnpool.errors import ProviderError, StepInterruptedError, TransientProviderError
from turnpool.settings import Settings
from turnpool.store.store import Store

pytestmark = pytest.mark.anyio

SECRET = "the-model-s-key"
ECHO = f"Oh no: Incorrect API key provided: {SECRET}. Sent: {{'Authorization': 'Bearer other-key'}}"
ERRORS = {
    "agent": RuntimeError(ECHO),
    "provider": ProviderError(ECHO),
    "transient": TransientProviderError(ECHO),
    "step": StepInterruptedError("pay", ValueError(ECHO)),
    "chained": KeyError(ECHO),
}
WHERE = "The worker's log has its text under turn s.1, attempt 1."


@pytest.fixture(autouse=True)
def learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process has a key."""
    for name in ("_secrets", "_known", "_hint"):
        monkeypatch.setattr(redaction, name, getattr(redaction, name))
    redaction.learn(Settings(llm_api_key=SECRET), environment={})


def raising(error: Exception) -> Any:
    """An agent that raises this."""

    async def agent(_: Turn) -> AsyncIterator[str | Event]:
        yield "half"
        raise error

    return agent


@pytest.mark.parametrize("kind", ERRORS)
async def test_by_default_a_client_gets_the_class_of_an_error_and_its_place(
    worker: Worker, store: Store, kind: str
) -> None:
    """Not a word of its text; the log has that, without the keys."""
    error = ERRORS[kind]
    with capture_logs() as lines:
        assert await worker.run(raising(error), retries=0) == "failed"
    turn = await record(store, "s.1")
    assert turn.error is not None
    assert turn.error["message"].endswith(WHERE)
    for word in (SECRET, "other-key", "Incorrect", "Oh no"):
        assert word not in str(await events(store, "s.1"))
        assert word not in turn.error["message"]
    (line,) = (line for line in lines if line["event"] in {"turn_failed", "agent_failed"})
    assert (line["turn"], line["attempt"]) == ("s.1", 1)
    assert "Incorrect API key" in str(line.get("error") or line["exc_info"])


@pytest.mark.parametrize("kind", ERRORS)
async def test_a_setting_shows_the_text_without_secrets(worker: Worker, store: Store, kind: str) -> None:
    """For those who trust their clients."""
    store.settings = store.settings.model_copy(update={"show_errors": True})
    assert await worker.run(raising(ERRORS[kind]), retries=0) == "failed"
    error = (await record(store, "s.1")).error
    assert error is not None
    assert "Incorrect API key provided: [cut]" in error["message"]
    assert SECRET not in error["message"]
    assert "other-key" not in error["message"]


async def test_words_of_the_agent_s_author_are_for_clients(worker: Worker, store: Store) -> None:
    """`public` is shown as it is, but for secrets."""
    error = ProviderError(ECHO, f"The shop is closed ({SECRET}).")
    assert await worker.run(raising(error)) == "failed"
    told = (await record(store, "s.1")).error
    assert told == {"code": "provider_error", "message": f"The shop is closed ([cut]). {WHERE}"}


async def test_a_long_text_is_cut_after_its_secrets(worker: Worker, store: Store) -> None:
    """Half a secret would not be known as one."""
    store.settings = store.settings.model_copy(update={"show_errors": True})
    assert await worker.run(raising(ProviderError("x" * 495 + SECRET))) == "failed"
    error = (await record(store, "s.1")).error
    assert error is not None
    assert error["message"] == "x" * 495 + "[cut]"
