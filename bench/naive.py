"""The floor: the server teams start with. One process, the simulated model inside, no queue, no history."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

app = FastAPI()


class Params(BaseModel):
    """As those of agent `simulated`."""

    tokens: int = 100
    ttft_ms: float = 20
    itl_ms: float = 20


class Turn(BaseModel):
    """What is posted."""

    input: str
    params: Params = Params()


@app.post("/v1/sessions/{session_id}/turns")
async def turn(session_id: str, body: Turn) -> StreamingResponse:
    """Stream the same words at the same times as agent `simulated`."""
    return StreamingResponse(_words(session_id, body.params), media_type="text/event-stream")


async def _words(session_id: str, params: Params) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    due = loop.time() + (params.ttft_ms - params.itl_ms) / 1000
    for k in range(params.tokens):
        due += params.itl_ms / 1000
        await asyncio.sleep(max(due - loop.time(), 0))
        yield _frame(session_id, k + 1, "turn.output_text.delta", text=f"w{k} ")
    yield _frame(session_id, params.tokens + 1, "turn.completed")


def _frame(session_id: str, seq: int, kind: str, **fields: str) -> str:
    """An event as turnpool's: the same fields."""
    common = {"type": kind, "turn_id": session_id, "seq": seq, "attempt": 1, "created_at": time.time()}
    return f"id: {seq}\nevent: {kind}\ndata: {json.dumps(common | fields)}\n\n"


if __name__ == "__main__":
    port = int(sys.argv[1])
    uvicorn.run(app, port=port, log_level="warning", loop="uvloop", http="httptools", backlog=4096)
