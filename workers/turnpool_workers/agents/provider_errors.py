"""What a provider's refusals, error events and broken connections mean: whether to ask again, and when.

An error's `message` has the provider's words and is for the log; `public` has the status and the code only.
"""

import math
import re
import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx

from turnpool.errors import ProviderError, TransientProviderError
from turnpool_workers.agents.pieces import parse

PROVIDER = "The model's provider"
TOO_MANY, SERVER_ERROR = 429, 500
# Statuses that may pass: time-out, conflict, too early, too many requests; and all of the 500s.
TRANSIENT = frozenset({408, 409, 425, TOO_MANY})
# The provider took no request: too many of them, a gateway without its server, loading, overloaded. These
# take up no tries. 521 to 523 and 529 are Cloudflare's and Anthropic's.
UNAVAILABLE = frozenset({TOO_MANY, 502, 503, 521, 522, 523, 529})
# Codes and types, without punctuation, that stay whatever the status says.
PERMANENT = frozenset({
    "invalidapikey", "incorrectapikey", "invalidauthentication", "authenticationerror", "permissiondenied",
    "permissiondeniederror", "permissionerror", "accessterminated", "accountdeactivated",
    "insufficientquota", "insufficientbalance", "insufficientcredits", "insufficientuserquota",
    "exceededcurrentquotaerror", "billinghardlimitreached", "billingnotactive", "billingerror",
    "contextlengthexceeded", "exceedcontextsizeerror", "contextwindowexceedederror", "stringabovemaxlength",
    "requesttoolarge", "contentpolicyviolation", "contentpolicyviolationerror", "contentpolicy",
    "contentfilter", "moderation", "invalidprompt", "modelnotfound", "unsupportedcountryregionterritory",
})  # fmt: skip
# Those that say so of a request, where no status says something else.
BAD_REQUEST = frozenset({
    "invalidrequesterror", "invalidrequest", "invalidparameter", "unsupportedparameter", "unsupportedvalue",
    "badrequesterror", "badrequest", "notfounderror", "unprocessableentityerror", "validationerror",
})  # fmt: skip
BUSY = frozenset({
    "ratelimitexceeded", "ratelimiterror", "toomanyrequests", "overloaded", "overloadederror",
    "serveroverloaded", "serverisoverloaded", "engineoverloaded", "engineoverloadederror", "slowdown",
    "serviceunavailable", "serviceunavailableerror", "unavailable", "unavailableerror", "resourceexhausted",
    "modelloading",
})  # fmt: skip
LOADING = re.compile(
    r"\b(still|currently|is) (being )?load(ing|ed)\b|\bloading\b.{0,20}\bmodel\b", re.IGNORECASE
)
CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
# Characters of the provider's words that are kept; some answer with whole pages.
MAX_WORDS = 1000


class Fault(NamedTuple):
    """What an error says: its words, its code or type, an HTTP status in place of a code, seconds to wait."""

    words: str
    codes: tuple[str, ...] = ()
    status: int | None = None
    wait: float | None = None

    @property
    def code(self) -> str:
        """The code in brackets, as far as it can be shown to a client."""
        return next((f" ({code})" for code in self.codes if CODE.fullmatch(code)), "")

    def is_any_of(self, codes: frozenset[str]) -> bool:
        """Whether its code or type is one of these."""
        return any(re.sub(r"[^a-z0-9]", "", code.lower()) in codes for code in self.codes)


def fault_in(value: Any) -> Fault | None:
    """The error that an event or a body is, None if it is none."""
    if isinstance(value, list) and len(value) == 1:
        # Gemini puts its errors into a list.
        value = value[0]
    return _fault_in(value) if isinstance(value, dict) else None


def _fault_in(value: dict[str, Any]) -> Fault | None:
    if error := value.get("error"):
        return _fault(error if isinstance(error, dict) else {**value, "error": None, "message": error})
    if value.get("object") == "error" or value.get("type") == "error":
        return _fault(value)
    for choice in value.get("choices") or ():
        if isinstance(choice, dict) and choice.get("error"):
            return fault_in({"error": choice["error"]})
    if "choices" not in value:
        for name in ("detail", "message", "errors", "error_message", "msg"):
            # An object is no message: Ollama's own format has its answer there.
            if isinstance(value.get(name), str) or (name != "message" and value.get(name)):
                return _fault(value)
    return None


def _fault(error: dict[str, Any]) -> Fault:
    words = next(
        (error[name] for name in ("message", "detail", "errors", "error_message", "msg") if error.get(name)),
        error,
    )
    code, status = error.get("code"), error.get("status")
    statuses = [int(x) for x in map(str, (code, status)) if re.fullmatch(r"[45]\d\d", x)]
    codes = tuple(x for x in (code, error.get("type"), status) if isinstance(x, str) and not x.isdigit())
    wait = error.get("estimated_time", error.get("retry_after"))
    return Fault(str(words)[:MAX_WORDS], codes, statuses[0] if statuses else None, _hint(wait))


def refused(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """The error for an answer that is no success."""
    try:
        fault = fault_in(parse(body)) or Fault("")
    except (ValueError, RecursionError):
        fault = Fault("")
    words = fault.words or body.decode(errors="replace")[:MAX_WORDS].strip()
    said = f"{PROVIDER} answered {status}"
    if not (status in TRANSIENT or status >= SERVER_ERROR) or fault.is_any_of(PERMANENT):
        return ProviderError(f"{said}: {words}", f"{said}{fault.code}.")
    wait = retry_after(headers)
    unavailable = status in UNAVAILABLE or fault.is_any_of(BUSY) or bool(LOADING.search(words))
    return TransientProviderError(
        f"{said}: {words}", fault.wait if wait is None else wait, public=f"{said}{fault.code}.",
        unavailable=unavailable,
    )  # fmt: skip


def broke_off(fault: Fault) -> ProviderError:
    """The error for one that arrived in place of an answer, or in the middle of it."""
    said = f"{PROVIDER} broke off"
    message, public = f"{said}: {fault.words}", f"{said} its answer{fault.code}."
    status = fault.status
    is_refusal = status is not None and status < SERVER_ERROR and status not in TRANSIENT
    if is_refusal or fault.is_any_of(PERMANENT) or (status is None and fault.is_any_of(BAD_REQUEST)):
        return ProviderError(message, public)
    unavailable = status in UNAVAILABLE or fault.is_any_of(BUSY)
    return TransientProviderError(message, fault.wait, public=public, unavailable=unavailable)


def unreachable(error: Exception) -> TransientProviderError:
    """The error for a connection that failed; the log says why."""
    said = f"{PROVIDER} cannot be reached"
    root = _root(error)
    reason = f"{type(root).__name__}: {root}" if str(root) else type(root).__name__
    is_untrusted = "CERTIFICATE_VERIFY_FAILED" in reason
    return TransientProviderError(f"{said}: {reason}", public=f"{said}.", unavailable=not is_untrusted)


def disconnected(error: Exception) -> TransientProviderError:
    """The error for a connection that broke."""
    root = _root(error)
    reason = f"{type(root).__name__}: {root}" if str(root) else type(root).__name__
    said = f"{PROVIDER} broke off"
    return TransientProviderError(f"{said}: {reason}", public=f"{said} its answer.")


def no_stream(content_type: str, beginning: bytes) -> ProviderError:
    """The error for a success that is no answer of a model."""
    said = f"{PROVIDER} answered with {content_type or 'no content type'}, which is no answer of a model"
    advice = "is TURNPOOL_LLM_BASE_URL the address of an OpenAI-compatible endpoint (…/v1)?"
    words = " ".join(beginning.decode(errors="replace")[:MAX_WORDS].split())
    return ProviderError(f"{said}: {advice} It begins: {words}", f"{said}.")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from milliseconds, seconds or a date (RFC 9110, 10.2.3); None for what is no hint.

    0, a negative number and a date that has passed are none: whoever obeyed them would ask at once.
    """
    if milliseconds := _hint(headers.get("retry-after-ms")):
        return milliseconds / 1000
    value = headers.get("retry-after")
    if seconds := _hint(value):
        return seconds
    try:
        return _hint(parsedate_to_datetime(value or "").timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _hint(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _root(error: BaseException) -> BaseException:
    """What a chain of exceptions began with: the system's own, or the last one."""
    while True:
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
            continue
        cause = error.__cause__ or error.__context__
        is_system_s = isinstance(error, OSError) and error.errno is not None
        # How TLS on asyncio says that it waits, which is no reason.
        if is_system_s or cause is None or isinstance(cause, ssl.SSLWantReadError):
            return error
        error = cause


CONNECTING = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.PoolTimeout)
"""Errors from before a request was sent."""
