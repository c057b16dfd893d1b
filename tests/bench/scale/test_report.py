"""The tables of docs/scale.md."""

from bench.scale.costs import Cost, Costs
from bench.scale.report import text
from bench.scale.valkey import Bytes, Fixed, Side

COSTS = Costs(
    {
        "api": Cost(turn=1e-3, second=0.1, event=5e-5, token=0, flush=1e-3),
        "worker": Cost(turn=1e-3, second=0.05, event=0, token=2e-5, flush=5e-3),
        "valkey": Cost(turn=4e-4, second=0, event=2e-5, token=0, flush=1e-3),
    },
    intervals=[(1, 0.1)],
    rss={"api": 20_000, "worker": 60_000},
    accepted=100,
)
FIXED = Fixed(Bytes(1000, 200, 5, 2000, 10), Side(5e-5, 1e-5, 2e-5), Side(1e-5, 1e-6, 1e-5), 4e-5)


def rows(told: str, start: str) -> list[list[str]]:
    """The cells of all rows that begin so."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in told.splitlines()
        if line.startswith(f"| {start}")
    ]


def test_what_it_takes_is_told_for_every_size() -> None:
    """Both cases, three sizes; what no cluster can hold stands out."""
    told = text(COSTS, FIXED)
    streams = rows(told, "turns that stream")
    assert streams[1][1:] == ["10,000", "100,000", "1,000,000"]
    shards = rows(told, "store: shards")
    assert [row[3] for row in shards] == ["**more than 64**"] * 2
    assert 1 < int(shards[0][1]) < int(shards[1][1]) < 64


def test_limits_come_in_order() -> None:
    """The one that is used most first, those that give way in bold."""
    [small, *_, huge] = rows(text(COSTS, FIXED), "Conversations | ")[:3]
    assert "**" not in "".join(small)
    assert huge[2].startswith("**CPU of the ")
    used = [float(cell.strip("* %").rsplit(" ", 1)[-1].replace(",", "")) for cell in huge[2:]]
    assert used == sorted(used, reverse=True)


def test_each_mend_comes_on_top_of_those_before() -> None:
    """A pool carries more with each, and pools for a million are as many as that takes."""
    told = text(COSTS, FIXED)
    mends = [
        rows(told, name)[0] for name in ("a cluster", "`FLUSH_MS`", "and `LEASE", "and claims", "and looks")
    ]
    most = [float(row[1].replace(",", "")) for row in mends]
    assert most == sorted(most)
    assert most[0] < most[-1]
    for row, sessions in zip(mends, most, strict=True):
        pools = int(row[4].replace(",", ""))
        # Sessions have two digits.
        assert 0.9e6 < sessions * pools < 1.2e6 + sessions
        assert int(row[5].replace(",", "")) == pools * int(row[2])
