"""Errors of the API itself."""

from turnpool.errors import TurnpoolError


class UnauthorizedError(TurnpoolError):
    """No key, or a wrong one."""

    code = "unauthorized"

    def __init__(self) -> None:
        super().__init__("Send a valid key: Authorization: Bearer <key>.")


class ForbiddenError(TurnpoolError):
    """The caller may not do this."""

    code = "forbidden"

    def __init__(self, advice: str) -> None:
        super().__init__(advice)


class HostNotAllowedError(TurnpoolError):
    """The request names a host that is not this API's."""

    code = "host_not_allowed"

    def __init__(self) -> None:
        super().__init__(
            "This API has no keys, so it is served under local names only. "
            "Set TURNPOOL_API_KEYS, or name this host in TURNPOOL_ALLOWED_HOSTS."
        )


class CrossSiteError(TurnpoolError):
    """A page of another site has sent the request."""

    code = "cross_site"

    def __init__(self) -> None:
        super().__init__("This API has no keys, so pages of other sites may not call it.")


class DrainingError(TurnpoolError):
    """This process takes no more turns."""

    code = "draining"

    def __init__(self) -> None:
        super().__init__("This process is draining; another one takes the request.")


class InputTooLargeError(TurnpoolError):
    """The request body is over the limit."""

    code = "input_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The body is over {limit} bytes; send less (limit: TURNPOOL_MAX_INPUT_BYTES).")


class IdempotencyKeyTooLongError(TurnpoolError):
    """An Idempotency-Key is over 255 characters."""

    code = "idempotency_key_too_long"

    def __init__(self) -> None:
        super().__init__("An Idempotency-Key has at most 255 characters.")


class TurnFailedError(TurnpoolError):
    """A turn that somebody waited for failed."""

    code = "turn_failed"

    def __init__(self, turn_id: str, error: dict[str, str] | None) -> None:
        code, message = (error["code"], error["message"]) if error else ("unknown", "unknown")
        super().__init__(f"Turn {turn_id} failed ({code}): {message}")
        self.turn_id = turn_id


class TurnUnfinishedError(TurnpoolError):
    """A turn that somebody waited for goes on, but this process cannot wait any longer."""

    code = "turn_unfinished"

    def __init__(self, turn_id: str) -> None:
        super().__init__(
            f"Turn {turn_id} has not ended. Do not post it again: wait for it at /v1/turns/{turn_id}?wait=60."
        )
        self.turn_id = turn_id
        self.location = f"/v1/turns/{turn_id}"


class TurnCancelledError(TurnpoolError):
    """A turn that somebody waited for was cancelled."""

    code = "turn_cancelled"

    def __init__(self, turn_id: str) -> None:
        super().__init__(f"Turn {turn_id} was cancelled.")
        self.turn_id = turn_id


class UnsupportedEncodingError(TurnpoolError):
    """The request body is compressed."""

    code = "unsupported_encoding"

    def __init__(self) -> None:
        super().__init__("Send the body as it is, without Content-Encoding.")


class BodyTimeoutError(TurnpoolError):
    """The request body took too long."""

    code = "request_timeout"

    def __init__(self) -> None:
        super().__init__("The body arrived too slowly while others waited for memory; send it again.")


class OverloadedError(TurnpoolError):
    """There is no memory for another large body."""

    code = "overloaded"

    def __init__(self) -> None:
        super().__init__(
            "Too many large requests at once; try again soon (limit: TURNPOOL_MAX_BODIES_BYTES)."
        )


class MethodNotImplementedError(TurnpoolError):
    """No route has this method."""

    code = "method_not_implemented"

    def __init__(self, method: str) -> None:
        super().__init__(f"There is no method {method} here.")
