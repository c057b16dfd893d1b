"""The load that a seed gives: what each of many users does, move by move."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

USERS = 20
# Moves of a user in one session, then a new one: a session's messages go with every claim.
SESSION_MOVES = 8
# Most seconds between two moves of a user.
THINKING = 0.6


class Style(StrEnum):
    """How a client reads a turn."""

    DIRECT = "read on the post's own stream"
    AFTER = "read on a stream of its own"
    SLOW = "read little by little"
    HOP = "read on one API after the other"
    GIVE_UP = "given up, read later"
    WAIT = "waited for by REST"


@dataclass(frozen=True)
class Post:
    """A turn to post. `key`: unique; it is the Idempotency-Key where `keyed`, and always in the metadata.

    `lose_answer`: hang up before the first answer comes. `cancel_after`, `delete_after` (the whole
    session): seconds, None for never.
    """

    session: str
    key: str
    tokens: int
    itl_ms: float
    style: Style
    keyed: bool = True
    on_busy: str = "queue"
    fail_at: int | None = None
    lose_answer: bool = False
    cancel_after: float | None = None
    delete_after: float | None = None
    deadline: float | None = None

    @property
    def body(self) -> dict[str, Any]:
        """As it is posted."""
        params = {"tokens": self.tokens, "itl_ms": self.itl_ms, "ttft_ms": 10}
        if self.fail_at is not None:
            params["fail_at"] = self.fail_at
        deadline = {} if self.deadline is None else {"deadline_seconds": self.deadline}
        return {
            **deadline,
            "input": self.key,
            "agent": "simulated",
            "params": params,
            "on_busy": self.on_busy,
            "metadata": {"key": self.key, "on_busy": self.on_busy, **deadline},
        }


@dataclass(frozen=True)
class Move:
    """Posts of a user to a session at once, after some thinking; `gap`: seconds from one to the next."""

    session: str
    thinking: float
    posts: list[Post]
    gap: float


def moves(seed: int, user: int) -> Iterator[Move]:
    """What a user does, without end."""
    rng = random.Random(f"user {seed} {user}")  # noqa: S311 - the same seed, the same load
    number = 0
    while True:
        session = f"u{user}-{number // SESSION_MOVES}"
        yield _move(rng, session, f"{session}-{number}")
        number += 1


def _move(rng: random.Random, session: str, key: str) -> Move:
    def post(suffix: str = "", **changes: Any) -> Post:
        fields: dict[str, Any] = {
            "session": session,
            "key": key + suffix,
            "tokens": rng.choice((1, 10, 30, 60, 100, 150)),
            "itl_ms": rng.choice((5, 20, 20)),
            "style": rng.choice(list(Style)),
            "keyed": rng.random() > 0.15,  # the others take the chance of not knowing
        }
        return Post(**{**fields, **changes})

    gap = 0.05
    kinds = ("one", "queue", "cancel", "interrupt", "reject", "lose", "fail", "late", "delete")
    match rng.choices(kinds, (6, 4, 3, 2, 2, 2, 1, 1, 1))[0]:
        case "queue":
            posts = [post(f"-{i}") for i in range(rng.randint(2, 4))]
        case "cancel":
            after = rng.uniform(0, 1.5)
            first = [post("-0")] if rng.random() < 0.5 else []
            posts = [*first, post("-1", tokens=150, itl_ms=20, cancel_after=after)]
        case "interrupt":
            long = [post(f"-{i}", tokens=150, itl_ms=20) for i in range(rng.randint(1, 2))]
            posts, gap = [*long, post("-i", on_busy="interrupt")], rng.uniform(0, 1)
        case "reject":
            posts, gap = [post("-0", tokens=60), post("-r", on_busy="reject")], rng.uniform(0, 1)
        case "lose":
            posts = [post(keyed=True, lose_answer=True)]
        case "fail":
            posts = [post(tokens=60, fail_at=rng.randint(0, 59))]
        case "late":
            # Those behind it are late before they start, at times.
            late: dict[str, Any] = {"tokens": 150, "itl_ms": 20, "deadline": rng.uniform(0.5, 4)}
            posts = [post(f"-{i}", **late) for i in range(rng.randint(1, 2))]
        case "delete":
            gone: dict[str, Any] = {
                "session": f"{key}-gone",
                "keyed": True,
                "delete_after": rng.uniform(0, 1.5),
            }
            posts = [post(tokens=100, itl_ms=20, **gone)]
        case _:
            posts = [post()]
    return Move(session, rng.uniform(0, THINKING), posts, gap)
