"""Cuts secrets out of texts that leave the process: log lines, errors, messages to clients.

Two kinds are cut: the secrets that this process is configured with, in each form in which a library may quote
them, and what has the form of a secret, whoever it belongs to.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from pydantic import BaseModel, SecretStr

CUT = "[cut]"
# Shorter ones guard nothing, and cutting them would cut up ordinary words.
SHORTEST = 4
# The same for variables of the environment that are not turnpool's; their names only suggest a secret.
SHORTEST_FOREIGN = 8
FOREIGN = re.compile(r"(^|_)(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS)$", re.IGNORECASE)
_NAMES = (
    r"(?:api|access|secret|private|admin|auth|subscription)[-_ ]?(?:key|token)"
    r"|password|passwd|secret|signature|token|sig"
)
_BEGINNINGS = (
    r"\b[spr]k-[\w*.…-]{4,}", r"\bgh[pousr]_\w{16,}", r"\bgithub_pat_\w{16,}", r"\bxox[a-z]-[\w-]{8,}",
    r"\bAKIA[A-Z0-9]{12,}", r"\bAIza[\w-]{20,}", r"\b(?:hf|gsk)_\w{16,}", r"\bxai-\w{16,}",
    r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*",
    # Providers mask the middle of a key and show its ends.
    r"[\w-]*\*{3,}[\w-]+", r"[\w-]+\*{3,}",
)  # fmt: skip
_FORMS = tuple(
    (re.compile(form, re.IGNORECASE if name else 0), replacement)
    for name, form, replacement in (
        (True, r"(authorization[\"'\\]*\s*[:=]\s*[\"'\\]*)(?!\[cut\])[^\"'\\\r\n,}]+", rf"\1{CUT}"),
        (True, r"\b(bearer|basic)\s+[\w.~+/=*-]{4,}", rf"\1 {CUT}"),
        (False, r"(://)[^/\s@\"'\\?#]*@", rf"\1{CUT}@"),
        (
            True,
            rf"((?:\b|[?&_-])(?:{_NAMES})[\"'\\]*\s*[:=]\s*[\"'\\]*)(?!\[cut\])[^\s\"'\\&,;}})\]]{{4,}}",
            rf"\1{CUT}",
        ),
        (True, r"([?&]key=)[^&\s\"'\\]+", rf"\1{CUT}"),
        (False, "|".join(_BEGINNINGS), CUT),
    )
)
# Without one of these no form can match: one look keeps ordinary lines cheap.
_HINTS = (
    "uthorization", "UTHORIZATION", "earer", "EARER", "asic ", "ASIC ", "://", "oken", "OKEN", "assw",
    "ASSW", "ecret", "ECRET", "ignature", "IGNATURE", "sig", "SIG", "key", "KEY", "Key", "sk-", "pk-",
    "rk-", "gh", "xox", "AKIA", "AIza", "hf_", "gsk_", "xai-", "eyJ", "***",
)  # fmt: skip

_secrets: tuple[str, ...] = ()
_known = re.compile(r"(?!)")
_hint = re.compile("|".join(map(re.escape, _HINTS)))


def learn(*settings: BaseModel, environment: Mapping[str, str] = os.environ) -> None:
    """Cut the secrets of these settings from now on, and those that the environment has."""
    global _secrets, _known, _hint  # noqa: PLW0603 - logging, too, is one for the process
    found = {*_secrets, *(form for secret in _of(settings, environment) for form in _forms(secret))}
    # The longest first, so that none leaves its end behind.
    _secrets = tuple(sorted(found, key=len, reverse=True))
    _known = re.compile("|".join(map(re.escape, _secrets)) or "(?!)")
    _hint = re.compile("|".join(map(re.escape, (*_secrets, *_HINTS))))


def redact(text: str) -> str:
    """The text without secrets."""
    if not _hint.search(text):
        return text
    text = _known.sub(CUT, text)
    for form, replacement in _FORMS:
        text = form.sub(replacement, text)
    return text


def redact_value(value: Any) -> Any:
    """A value of a log line without secrets; of a kind that is no JSON, its repr."""
    match value:
        case str():
            return redact(value)
        case None | bool() | int() | float():
            return value
        case dict():
            return {redact(str(name)): redact_value(item) for name, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [redact_value(item) for item in value]
    return redact(repr(value))


def _of(settings: Iterable[BaseModel], environment: Mapping[str, str]) -> Iterable[str]:
    for one in settings:
        for name in type(one).model_fields:
            value = getattr(one, name)
            if isinstance(value, SecretStr):
                yield from _parts(value.get_secret_value())
            elif isinstance(value, str) and "://" in value:
                yield from _of_url(value)
    for name, text in environment.items():
        if FOREIGN.search(name) and len(text) >= SHORTEST_FOREIGN:
            yield text


def _parts(secret: str) -> Iterable[str]:
    """A secret, and where it is a list of `tenant:key`, each key."""
    if secret == NO_SECRET:
        return
    yield secret
    for part in secret.split(","):
        _, colon, key = part.strip().partition(":")
        if colon:
            yield key.strip()


def _of_url(url: str) -> Iterable[str]:
    """Passwords in a URL: its own, and values in its query whose names say so."""
    try:
        parts = urlsplit(url)
        _, _, password = parts.netloc.rpartition("@")[0].partition(":")
    except ValueError:
        return
    yield password
    yield unquote(password)
    for name, value in parse_qsl(parts.query):
        if re.search(_NAMES, name, re.IGNORECASE) or name.lower() == "key":
            yield value


def _forms(secret: str) -> set[str]:
    """The secret as URLs, JSON and Python write it."""
    if len(secret) < SHORTEST:
        return set()
    written = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
    return {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), *written}


NO_SECRET = "none"  # noqa: S105 - the opposite of one
"""What `TURNPOOL_LLM_API_KEY` has where there is no key."""
