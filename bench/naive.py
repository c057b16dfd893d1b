"""The floor: the server teams start with. One process, the simulated model inside, no queue, no history."""

import asyncio
import sys
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

app = FastAPI()
TOKENS, SECONDS = 100, 0.02


@app.post("/v1/sessions/{session_id}/turns")
async def turn(session_id: str) -> StreamingResponse:
    """Stream the same words at the same times as agent `simulated`."""
    return StreamingResponse(_words(session_id), media_type="text/event-stream")


async def _words(session_id: str) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    due = loop.time()
    for k in range(TOKENS):
        due += SECONDS
        await asyncio.sleep(max(due - loop.time(), 0))
        data = f'{{"type":"turn.output_text.delta","turn_id":"{session_id}","seq":{k + 1},"text":"w{k} "}}'
        yield f"id: {k + 1}\nevent: turn.output_text.delta\ndata: {data}\n\n".encode()


if __name__ == "__main__":
    port = int(sys.argv[1])
    uvicorn.run(app, port=port, log_level="warning", loop="uvloop", http="httptools", backlog=4096)
