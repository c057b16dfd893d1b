"""`turnpool up`: Valkey, a model, the API, a worker and Flower with one command."""

from pathlib import Path
from typing import Annotated

import typer

from turnpool.console import EXTRAS, check_extras


def up(  # noqa: PLR0913 - one parameter per option
    *,
    host: Annotated[
        str, typer.Option(envvar="TURNPOOL_HOST", help="Where the API and Flower listen.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="TURNPOOL_PORT", help="Port of the API.")] = 8000,
    flower_port: Annotated[int, typer.Option(envvar="TURNPOOL_FLOWER_PORT", help="Port of Flower.")] = 5555,
    metrics_port: Annotated[
        int, typer.Option(envvar="TURNPOOL_METRICS_PORT", help="Port of the worker's metrics.")
    ] = 9808,
    valkey_port: Annotated[int, typer.Option(help="Port of the embedded Valkey.")] = 7379,
    model_port: Annotated[int, typer.Option(help="Port of the local model.")] = 7380,
    data: Annotated[Path, typer.Option(help="Folder that keeps the data.")] = Path(".turnpool"),
    simulated: Annotated[
        bool, typer.Option("--simulated", help="Simulate the answers; start no model.")
    ] = False,
) -> None:
    """Start Valkey, a model, the API, a worker and Flower. One Ctrl-C ends all.

    What is set in TURNPOOL_* stands: with TURNPOOL_REDIS_URL no Valkey is started, with
    TURNPOOL_LLM_BASE_URL no model.
    """
    check_extras("turnpool up", *EXTRAS)
    # The parts behind it are optional extras, and too slow to load for the other commands.
    from turnpool.cli.parts import Options  # noqa: PLC0415
    from turnpool.cli.running import run  # noqa: PLC0415

    options = Options(
        host=host,
        port=port,
        flower_port=flower_port,
        metrics_port=metrics_port,
        valkey_port=valkey_port,
        model_port=model_port,
        data=data,
        simulated=simulated,
    )
    run(options)
