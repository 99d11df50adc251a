"""Writes docs/performance.md and its pictures, of what ``make bench`` measured. Nothing is typed.

    python3 -m tests.bench.document

What was measured is kept beside the document in docs/performance.json: this writes it again.
"""

from __future__ import annotations

import json
import os
import platform
import re
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from rsttrace import __version__
from tests.bench.load import RATES, Load
from tests.bench.packets import ROUNDS, Cost
from tests.bench.ways import version

DOCS = Path(__file__).resolve().parents[2] / "docs"
FACTS, DOCUMENT, IMAGES = DOCS / "performance.json", DOCS / "performance.md", DOCS / "images"
OURS = ("rsttrace", "rsttrace --no-baseline")

Facts = dict[str, Any]

HOW = f"""\
client and server are network namespaces on one veth pair, on one machine. Each kind of traffic runs
with nothing that watches, then with each tool, in turns, {ROUNDS} times; the figures are medians. A
share is the rate with the tool by the rate without, in the same turn: 1 is no loss. What differs by
less than the rounds do says nothing; how far apart those without a tool are (the middle half of
them) is in the last column. Nanoseconds are the kernel's own (`bpf_stats`), for each run of the
programs that see every packet; about 50 to 70 of them are the counting itself and the call of an
empty program. tcpdump watches the server's interface alone, the others every namespace.
"""


def machine() -> dict[str, str]:
    """What it was measured on."""
    cpu = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert memory is not None
    return {
        "processor": f"{os.cpu_count()} x {cpu[1] if cpu else platform.machine()}",
        "memory": f"{int(memory[1]) / (1 << 20):.0f} GB",
        "kernel": f"Linux {platform.release()}",
        "its load before (one minute's)": f"{os.getloadavg()[0]:.1f}",
        "software": ", ".join(
            filter(
                None,
                (
                    f"rsttrace {__version__}",
                    f"Python {platform.python_version()}",
                    version("tcpdump"),
                    version("bpftrace"),
                ),
            )
        ),
        "date": date.today().isoformat(),
    }


def facts(
    about: dict[str, str],
    costs: list[Cost],
    loads: list[Load],
    memory: list[tuple[float, float]],
    printed: dict[str, str],
) -> Facts:
    """All that the document is made of: `machine`, and what was measured; `printed` is what each
    other measurement said."""
    return {
        "machine": about,
        "costs": [asdict(cost) for cost in costs],
        "loads": [asdict(load) for load in loads],
        "memory": [list(point) for point in memory],
        "printed": printed,
    }


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]


def text(found: Facts) -> str:
    """The document."""
    lines = [
        "# Performance",
        "",
        "<!-- written by `make bench`; do not edit -->",
        "",
        "What tracing costs on one machine. Others have other numbers: `make bench` has yours.",
        "",
        *_table(["", ""], [[name, value] for name, value in found["machine"].items()]),
        "## Traffic",
        "",
        HOW,
    ]
    ways = list(found["costs"][0]["share"])
    rows = [
        [
            cost["traffic"],
            f"{cost['base']:,.0f}",
            *(f"{cost['share'][way]:.3f}" for way in ways),
            f"{cost['spread']:.3f}",
        ]
        for cost in found["costs"]
    ]
    lines += _table(["share that is left", "a second, untraced", *ways, "rounds apart"], rows)
    lines += ["![share of the traffic that is lost, by tool](images/performance-overhead.svg)", ""]
    rows = [
        [cost["traffic"], *(_in_out(cost["packet_ns"].get(way)) for way in OURS)]
        for cost in found["costs"]
    ]
    lines += _table(["ns a packet, in / out", *OURS], rows)
    lines += ["## Resets", "", "CPU of the tool (of one core), by resets a second at each end.", ""]
    rows = [
        [load["name"], *(f"{100 * share:.0f} % at {rate:,.0f}" for rate, share in load["points"])]
        for load in found["loads"]
    ]
    lines += _table(["", *(f"wanted: {rate:,}" for rate in RATES)], rows)
    lines += [
        "![CPU against resets a second](images/performance-cpu.svg)",
        "",
        "Memory that is resident, under 2,000 resets a second from the start on:",
        "",
        "![memory over time](images/performance-memory.svg)",
        "",
        "## The rest",
        "",
        "Each part of `make bench`, as it said it.",
        "",
    ]
    for name, said in found["printed"].items():
        lines += [f"### {name}", "", "```", said.strip(), "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def _in_out(spent: dict[str, float] | None) -> str:
    return f"{spent['in']:.0f} / {spent['out']:.0f}" if spent else ""


def draw(found: Facts) -> None:
    """The pictures."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "rsttrace"  # the same numbers give the same file
    mpl.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot as plt

    def save(name: str) -> None:
        plt.tight_layout()
        plt.savefig(IMAGES / f"performance-{name}.svg", metadata={"Date": None})
        plt.close()

    ways = list(found["costs"][0]["share"])
    plt.figure(figsize=(8, 4))
    for place, way in enumerate(ways):
        lost = [100 * (1 - cost["share"][way]) for cost in found["costs"]]
        at = [
            number + (place - len(ways) / 2 + 0.5) * 0.8 / len(ways) for number in range(len(lost))
        ]
        plt.bar(at, lost, 0.8 / len(ways), label=way)
    plt.xticks(range(len(found["costs"])), [cost["traffic"] for cost in found["costs"]], fontsize=8)
    plt.axhline(0, color="black", linewidth=0.5)
    plt.ylabel("% of the traffic lost")
    plt.legend(fontsize=8)
    save("overhead")

    plt.figure(figsize=(8, 4))
    for load in found["loads"]:
        rates, shares = zip(*load["points"])
        plt.plot(rates, [100 * share for share in shares], marker="o", label=load["name"])
    plt.xscale("log")
    plt.xlabel("resets a second")
    plt.ylabel("% of a core")
    plt.ylim(bottom=0)
    plt.legend(fontsize=8)
    save("cpu")

    plt.figure(figsize=(8, 3))
    seconds, megabytes = zip(*found["memory"])
    plt.plot(seconds, megabytes, marker="o")
    plt.xlabel("seconds")
    plt.ylabel("MB resident")
    plt.ylim(bottom=0)
    save("memory")


def write(found: Facts) -> None:
    """Keep what was measured, and write document and pictures."""
    FACTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    DOCUMENT.write_text(text(found), encoding="utf-8")
    draw(found)


if __name__ == "__main__":
    write(json.loads(FACTS.read_text(encoding="utf-8")))
