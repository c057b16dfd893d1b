"""The conversation as agents are given it and as a session keeps it: OpenAI's chat format, nothing else."""

from turnpool.agent import Message

# What the store adds to a message, for the API alone; SDKs refuse members that they do not know.
OURS = ("turn_id", "status")
# Members with which an assistant's message says something though it has no content.
SPEAKING = ("tool_calls", "function_call", "refusal", "audio")


def as_chat(stored: list[Message], input_: list[Message]) -> list[Message]:
    """The messages of a session, plain and without empty ones, and the turn's input after them."""
    for message in stored:
        for name in OURS:
            message.pop(name, None)
    return [*(message for message in stored if not is_empty(message)), *input_]


def answered(input_: list[Message], output: str) -> tuple[Message, ...]:
    """What a session keeps of a turn. An answer without text leaves no message: endpoints refuse those."""
    messages = (*input_, {"role": "assistant", "content": output})
    return tuple(message for message in messages if not is_empty(message))


def is_empty(message: Message) -> bool:
    """Whether it is an assistant's message that says nothing."""
    content = message.get("content")
    said = content.strip() if isinstance(content, str) else content
    return message.get("role") == "assistant" and not said and not any(map(message.get, SPEAKING))
