"""Secrets are cut out of texts."""

import subprocess
import sys

import pytest

from turnpool import redaction
from turnpool.redaction import CUT, redact, redact_value
from turnpool.settings import Settings

SECRETS = Settings(
    redis_url="redis://user:p%40ss%2Fw%C3%B6rd@h/0",
    broker_url="rediss+sentinel://h/0?master=m&ssl_cert_reqs=none&sentinel_password=for-the-sentinel",
    llm_base_url="https://me:basic-pass@x/v1?api-key=in-the-query&api-version=2026-01-01",
    llm_api_key="my-own-key",
    api_keys="ann:key-of-ann, bob:key-of-bob",
    admin_key='quote"and\\slash',
)


@pytest.fixture(autouse=True)
def learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process with secrets, and with one of an agent's own."""
    for name in ("_secrets", "_known", "_hint"):
        monkeypatch.setattr(redaction, name, getattr(redaction, name))
    redaction.learn(
        SECRETS, environment={"ACME_API_KEY": "agent's own key", "ACME_KEY": "short", "PATH": "/usr/bin/x"}
    )


@pytest.mark.parametrize(
    "secret",
    [
        "my-own-key",
        "key-of-ann",
        "key-of-bob",
        "p%40ss%2Fw%C3%B6rd",
        "p@ss/wörd",
        "p%40ss/w%C3%B6rd",
        "for-the-sentinel",
        "basic-pass",
        "in-the-query",
        'quote"and\\slash',
        'quote\\"and\\\\slash',
        "quote%22and%5Cslash",
        "agent's own key",
    ],
)
def test_a_configured_secret_is_cut_in_every_form(secret: str) -> None:
    """As it is, as URLs and as JSON write it, wherever it is."""
    for text in (secret, f"x{secret}y", f"wrong: {secret}, {secret}"):
        assert secret not in redact(text)
        assert CUT in redact(text)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Authorization: Bearer abcdef", "Authorization: [cut]"),
        ("{'authorization': 'Basic dXNlcjpwYXNz'}", "{'authorization': '[cut]'}"),
        ('{"Authorization":"abc def"}', '{"Authorization":"[cut]"}'),
        ("sent bearer eyJhb.eyJz.x to it", "sent bearer [cut] to it"),
        (
            "Incorrect API key provided: sk-proj-ab***********wxyz. You",
            "Incorrect API key provided: [cut] You",
        ),
        ("key abcd****wxyz is wrong", "key [cut] is wrong"),
        ("redis://u:pw@h:6379/0 and amqp://pw2@h", "redis://[cut]@h:6379/0 and amqp://[cut]@h"),
        ("GET https://x/v1?api-key=abcdef&a=1", "GET https://x/v1?api-key=[cut]&a=1"),
        ("https://x/?key=abcdef", "https://x/?key=[cut]"),
        ("https://x/?a=1&sig=ab%2Fc&b=2", "https://x/?a=1&sig=[cut]&b=2"),
        ("password='hunter2'", "password='[cut]'"),
        ("x-api-key: abcdefg", "x-api-key: [cut]"),
        ("token ghp_0123456789abcdefghij", "token [cut]"),
        ("AKIAIOSFODNN7EXAMPLE", "[cut]"),
    ],
)
def test_what_has_the_form_of_a_secret_is_cut(text: str, left: str) -> None:
    """Whoever it belongs to."""
    assert redact(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "The session s-1 has 3 tokens: 5, 6",
        "task-runner is short",
        "http://h:80/v1/x?a=b",
        "5 ** 3 *** 2",
        "none",
    ],
)
def test_other_text_is_left(text: str) -> None:
    """Whatever resembles a secret only at first sight."""
    assert redact(text) == text


def test_values_are_redacted_all_the_way_down() -> None:
    """Log lines have lists, objects and exceptions as values."""
    value = {"my-own-key": ["my-own-key", 1, None, ValueError("my-own-key")], "a": ("x", 2.5)}
    cut = redact_value(value)
    assert cut == {CUT: [CUT, 1, None, f"ValueError('{CUT}')"], "a": ["x", 2.5]}


LOGS = """
import logging
from turnpool.logs import configure, get_logger
from turnpool.settings import load_settings
load_settings()
configure("INFO", "test")
try:
    raise ValueError("wrong key my-own-key")
except ValueError as error:
    get_logger("own").error("failed", exc_info=error, headers={"a": ["my-own-key"]}, url="redis://u:pw@h/0")
    logging.getLogger("library").exception("refused my-own-key by %s", "https://x/?key=abcdef")
from turnpool.settings import exit_on_settings_error
from turnpool.errors import SettingsError
with exit_on_settings_error():
    raise SettingsError("TURNPOOL_AGENTS: cannot be loaded: my-own-key")
"""


@pytest.mark.slow
def test_no_line_of_a_process_has_a_secret() -> None:
    """Neither its own, nor a library's, nor a traceback, nor that of refused settings."""
    env = {"TURNPOOL_LLM_API_KEY": "my-own-key"}
    done = subprocess.run([sys.executable, "-c", LOGS], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 2
    assert (done.stderr.count("my-own-key"), done.stderr.count("pw@"), done.stderr.count("abcdef")) == (
        0,
        0,
        0,
    )
    assert done.stderr.count(f"wrong key {CUT}") == 2
    assert done.stderr.splitlines()[-1] == f"turnpool: TURNPOOL_AGENTS: cannot be loaded: {CUT}"
