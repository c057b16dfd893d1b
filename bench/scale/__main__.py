"""Remake the tables of docs/scale.md from the measured costs: seconds.

.venv/bin/python -m bench.scale [--measure]
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvloop

from bench.scale import lone, valkey
from bench.scale.costs import Lone, costs
from bench.scale.report import text
from bench.scale.valkey import load
from bench.speed.report import disturbed, put

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "bench/results"
DOCUMENT = ROOT / "docs/scale.md"


async def measure() -> dict[str, Any]:
    """What speed.json does not tell."""
    of_valkey, alone = asdict(await valkey.measure()), await lone.measure()
    return {"valkey": of_valkey, "lone": {role: asdict(each) for role, each in alone.items()}}


def main() -> None:
    """Print and write."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description="What many sessions need.")
    parser.add_argument("--measure", action="store_true", help="first measure bench/results/scale.json anew")
    options = parser.parse_args()
    fixed = RESULTS / "scale.json"
    if options.measure:
        fixed.write_text(json.dumps(uvloop.run(measure()), indent=1) + "\n")
    speed = json.loads((RESULTS / "speed.json").read_text())
    found = json.loads(fixed.read_text())
    known = {role: Lone(**each) for role, each in found["lone"].items()}
    tables = text(costs(speed["runs"], known), load(found["valkey"]))
    about = "Figures of {date}, {machine}.".format_map(speed["about"])
    if disturbed(speed["runs"]):
        about += " **Provisional: other programs used much of the machine.**"
    section = f"{about}\n\n{tables}"
    print(section)
    DOCUMENT.write_text(put(DOCUMENT.read_text(), "scale", section))


if __name__ == "__main__":
    main()
