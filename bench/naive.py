"""The floor: the server teams start with. One process, the simulated model inside, no queue, no history."""

import asyncio
import sys
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


async def _words(session_id: str, params: Params) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    due = loop.time() + (params.ttft_ms - params.itl_ms) / 1000
    for k in range(params.tokens):
        due += params.itl_ms / 1000
        await asyncio.sleep(max(due - loop.time(), 0))
        data = f'{{"type":"turn.output_text.delta","turn_id":"{session_id}","seq":{k + 1},"text":"w{k} "}}'
        yield f"id: {k + 1}\nevent: turn.output_text.delta\ndata: {data}\n\n".encode()
    end = f'{{"type":"turn.completed","turn_id":"{session_id}","seq":{params.tokens + 1}}}'
    yield f"id: {params.tokens + 1}\nevent: turn.completed\ndata: {end}\n\n".encode()


if __name__ == "__main__":
    port = int(sys.argv[1])
    uvicorn.run(app, port=port, log_level="warning", loop="uvloop", http="httptools", backlog=4096)
