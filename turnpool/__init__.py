"""turnpool: the turns of AI agents on a worker pool.

What an agent's author needs is here: `Turn`, and the events an agent may yield besides text.
"""

from turnpool.agent import (
    Agent,
    Event,
    Finish,
    Message,
    StartOver,
    ToolCall,
    ToolResult,
    Turn,
    Usage,
    continues,
)

__all__ = [
    "Agent",
    "Event",
    "Finish",
    "Message",
    "StartOver",
    "ToolCall",
    "ToolResult",
    "Turn",
    "Usage",
    "continues",
]
