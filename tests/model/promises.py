"""What must hold in every state of Redis."""

import json
from itertools import pairwise

from tests.model.contents import Contents, Event

TEXT = "xy"
# Few losses end a turn.
LOSSES = 2
ENDS = {"turn.completed": "completed", "turn.failed": "failed", "turn.cancelled": "cancelled"}
DELTA, RESTARTED, STARTED = "turn.output_text.delta", "turn.restarted", "turn.in_progress"


def broken(found: Contents) -> list[str]:
    """The promises that this state breaks, in words."""
    wrong = [f"a key without a time to live: {key}" for key in found.immortal]
    wrong += [f"left after a delete: {key}" for key in found.left]
    for turn_id in found.turns:
        wrong += [f"{turn_id}: {what}" for what in _log(found, turn_id)]
    return wrong + _messages(found) + _order(found) + _indexes(found)


def text_of(log: list[Event]) -> str:
    """The answer so far, as a client has it."""
    text = ""
    for event in log:
        if event.kind == DELTA:
            text += event.text
        elif event.kind == RESTARTED:
            text = text[: event.keep]
    return text


def _log(found: Contents, turn_id: str) -> list[str]:
    """P2, P4, P5: dense ids, no stale attempt, one end and last, no text twice."""
    log, turn = found.logs[turn_id], found.turns[turn_id]
    status = turn["status"]
    ends = [event.kind for event in log if event.kind in ENDS]
    wrong = {
        "ids have holes": [event.seq for event in log] != list(range(1, len(log) + 1)),
        "an attempt wrote after a later one": any(a.attempt > b.attempt for a, b in pairwise(log)),
        "an end that is not the last event": ends != [event.kind for event in log[-1:] if event.kind in ENDS],
        "its status is not what its log says": [ENDS[kind] for kind in ends]
        != [s for s in ENDS.values() if s == status],
        "text doubled or missing": not TEXT.startswith(text_of(log)),
        "completed without its text": status == "completed" and text_of(log) != TEXT,
        "failed without a reason": status == "failed" and not _has_reason(turn),
        "deleted, but does not run": "deleted" in turn and status != "in_progress",
        "its output is not its text": status in ("completed", "cancelled") and turn["output"] != text_of(log),
        "its seq is not that of its last event": turn["seq"] != str(len(log)),
        "restarted without a word": _silent_restarts(log),
    }
    return [what for what, is_so in wrong.items() if is_so]


def _has_reason(turn: dict[str, str]) -> bool:
    """Whether a turn that failed did so for what its error says."""
    code, begun = turn["error_code"], turn["attempt"] != "0"
    if code == "worker_lost":
        return int(turn["blame"]) >= LOSSES
    return turn["deadline_at"] == "1" and code == ("deadline_exceeded" if begun else "expired")


def _silent_restarts(log: list[Event]) -> bool:
    """Whether an attempt but the first began without telling what stands."""
    starts = [(before.kind, event.attempt) for before, event in pairwise(log) if event.kind == STARTED]
    return any(attempt > 1 and before != RESTARTED for before, attempt in starts)


def _messages(found: Contents) -> list[str]:
    """P2: the session has what each turn left, once, in order."""
    expected = []
    for turn_id, turn in found.turns.items():
        status, text = turn["status"], text_of(found.logs[turn_id])
        if status == "completed" or (status == "cancelled" and text):
            expected += [(turn_id, "user", turn_id), (turn_id, "assistant", text)]
    told = [(m["turn_id"], m["role"], m["content"]) for m in map(json.loads, found.messages)]
    return [] if told == expected else [f"messages of the session: {told} for {expected}"]


def _order(found: Contents) -> list[str]:
    """P6: no turn begins before those before it have ended."""
    wrong = []
    ended = True
    for turn_id, turn in found.turns.items():
        begun = any(event.kind == STARTED for event in found.logs[turn_id])
        if begun and not ended:
            wrong.append(f"{turn_id} began before its turn")
        ended = ended and turn["status"] in ENDS.values()
    return wrong


def _indexes(found: Contents) -> list[str]:
    """P1: what waits can be found, what runs has a lease, and nothing else has."""
    by = {turn_id: turn["status"] for turn_id, turn in found.turns.items()}
    queued = {turn_id for turn_id, status in by.items() if status == "queued"}
    running = {turn_id for turn_id, status in by.items() if status == "in_progress"}
    line = [turn_id for turn_id in by if turn_id in queued | running]
    told = [*filter(None, [found.head]), *found.pending]
    wrong = {
        f"head and those behind are {told}, not {line}": told != line,
        f"queued are {set(found.queued)}, not {queued}": found.queued != queued,
        f"deadlines are {set(found.deadlines)}, not {queued}": found.deadlines != queued,
        f"leases are {set(found.leases)}, not {running}": {name for name, _ in found.leases} != running,
        f"ready are {set(found.ready)} of {line}": found.ready != queued & set(line[:1]) - found.suspects,
        f"suspects are {set(found.suspects)} of {line}": not found.suspects <= queued & set(line[:1]),
    }
    return [what for what, is_so in wrong.items() if is_so]
