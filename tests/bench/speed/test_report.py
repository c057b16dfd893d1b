"""Tables of figures."""

from typing import Any

from bench.speed.report import disturbed, put, tables


def run(speed: float, **changes: Any) -> dict[str, Any]:
    """The figures of a run."""
    figures: dict[str, Any] = {
        "errors": 0,
        "at_once": 100,
        "ttft_added_ms": {"p50": 4.25, "p99": 20, "max": 30},
        "gap_ms": {"p50": 20, "p99": 1500},
        "tokens_per_s": speed,
        "accepted_per_s": 400,
        "cpu_us_per_token": {"api": 10, "worker": 20, "valkey": 5, "client": 90},
        "cpu_cores": {"client": 0.25, "others": 0.0},
        "rss_per_turn": {"api": 10240, "worker": 20480, "valkey": 1024, "client": 99999},
    }
    return figures | changes


def cells(line: str) -> list[str]:
    """What stands in a line of a table."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_row_has_medians_and_spread() -> None:
    """The client's own cost is told apart, and what is kept in Valkey is none of a turn's memory."""
    table = tables({"100 at once": {"floor": [], "turnpool": [run(3), run(5000), run(4000)]}})
    title, _, names, _, row = table.strip().splitlines()
    assert title == "### 100 at once"
    assert dict(zip(cells(names), cells(row), strict=True)) == {
        "": "turnpool",
        "TTFT added p50, ms": "4.2",
        "p99": "20",
        "most": "30",
        "gap p50, ms": "20",
        "gap p99": "1,500",
        "tokens/s": "4,000 (3 to 5,000)",
        "accepted/s": "400",
        "CPU, us/token": "35: api 10, worker 20, valkey 5",
        "RSS, KB/turn": "30: api 10, worker 20, valkey 1",
        "errors": "0",
        "client's CPU, % of a core": "25",
        "others' CPU": "0",
    }


def test_what_was_not_measured_is_no_zero() -> None:
    """Memory of a few turns says nothing of one, and submitted turns have no stream."""
    few = tables({"1 at once": {"turnpool": [run(5, at_once=1)]}}).strip().splitlines()[-1]
    assert cells(few)[9] == "-"
    submitted = {"errors": 0, "ttft_added_ms": {"p50": 9}, "accepted_per_s": 400}
    row = tables({"1000 submitted": {"turnpool": [submitted]}}).strip().splitlines()[-1]
    assert cells(row) == ["turnpool", "9", "-", "-", "-", "-", "-", "400", "-", "-", "0", "-", "-"]


def test_a_machine_that_others_use_is_told() -> None:
    """By the median of all runs."""
    busy, quiet = run(1, cpu_cores={"others": 0.9}), run(1, cpu_cores={"others": 0.01})
    assert "took 90 % of a core" in disturbed({"idle": {"floor": [busy, quiet], "turnpool": [busy]}})
    assert not disturbed({"idle": {"floor": [busy, quiet], "turnpool": [quiet]}})
    assert not disturbed({"1000 submitted": {"turnpool": [{"errors": 0}]}})


def test_a_section_takes_the_place_of_the_one_before() -> None:
    """The rest of the document stays, and another name's section."""
    document = put(put("# Figures\n\n## Others\n", "speed", "old"), "peers", "more")
    again = put(document, "speed", "new\n")
    assert again == document.replace("old", "new")
    assert again.startswith("# Figures\n\n## Others\n\n<!-- speed: begin -->\nnew\n<!-- speed: end -->")
