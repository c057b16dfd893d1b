"""The work of agent `simulated` as a graph of LangGraph: the same words at the same times.

A file that LangGraph's server loads by its path, in an environment without turnpool.
"""

import asyncio
from typing import Any, TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph


class State(TypedDict, total=False):
    """Params as those of agent `simulated`, and the answer."""

    tokens: int
    ttft_ms: float
    itl_ms: float
    output: str


async def answer(state: State) -> dict[str, Any]:
    """Write each word when it is due."""
    write, loop = get_stream_writer(), asyncio.get_running_loop()
    words = [f"w{k} " for k in range(state["tokens"])]
    due = loop.time() + (state["ttft_ms"] - state["itl_ms"]) / 1000
    for word in words:
        due += state["itl_ms"] / 1000
        await asyncio.sleep(max(due - loop.time(), 0))
        write(word)
    return {"output": "".join(words)}


graph = StateGraph(State).add_node("answer", answer).add_edge(START, "answer").compile()
