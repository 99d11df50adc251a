"""One soak."""

from __future__ import annotations

import os
import random
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.accuracy.dump import Dump
from tests.lab.conftest import routed_lab
from tests.lab.harness import Fence, Json, Tracer, out_rsts, poll_until
from tests.soak import mix
from tests.soak.audit import differences, seen

ROLES = ("client", "router", "server")
RSTS = "(ip and tcp[13] & 4 != 0) or (ip6 and ip6[6] == 6 and ip6[53] & 4 != 0)"

WARM_S = 10.0
"""Memory is compared from here on: until then caches fill."""

GROWTH_KIB = 8192
"""So much more resident memory is no growth: connections and answers that are remembered."""

REMEMBERED, EACH_KIB = 4096, 18
"""So many resets are remembered (`History`), and what each may take: until then memory grows.

With all that is known of them they take 16 KiB each; after 14,455 it is what it is after 20,503.
"""

FEW = 8
"""Descriptors that come and go: of namespaces that are looked into, of a tool that lists rules."""


@dataclass
class Sizes:
    """What a tracer takes."""

    resident_kib: int
    descriptors: int
    maps: int
    told: int

    @classmethod
    def of(cls, tracer: Tracer) -> Sizes:
        """Of a tracer now."""
        pid = tracer.process.pid
        status = Path(f"/proc/{pid}/status").read_text()
        resident = int(status.split("VmRSS:")[1].split()[0])
        names = [
            os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()
        ]
        maps = names.count("anon_inode:bpf-map")
        return cls(resident, len(names), maps, len(tracer.entries))


@dataclass
class Result:
    """What came of it."""

    seconds: float
    played: int
    resets: int = 0
    wrong: dict[str, list[str]] = field(default_factory=dict)
    counted: dict[str, tuple[int, int]] = field(default_factory=dict)
    before: Sizes | None = None
    after: Sizes | None = None
    end: str = ""

    def problems(self) -> list[str]:
        """What should not be."""
        found = [f"{role}: {line}" for role, lines in self.wrong.items() for line in lines]
        for role, (kernel, tracer) in self.counted.items():
            if kernel != tracer:
                found.append(f"{role}: TcpOutRsts {kernel}, told as sent by the stack {tracer}")
        if self.before is not None and self.after is not None:
            grown = self.after.resident_kib - self.before.resident_kib
            new = min(self.after.told, REMEMBERED) - self.before.told
            if grown > GROWTH_KIB + EACH_KIB * max(0, new):
                found.append(f"resident memory grew by {grown} KiB")
            if self.after.descriptors > self.before.descriptors + FEW:
                found.append(f"descriptors: {self.before.descriptors}, {self.after.descriptors}")
            if self.after.maps != self.before.maps:
                found.append(f"maps: {self.before.maps}, then {self.after.maps}")
        if not self.resets:
            found.append("there was no reset")
        return found

    def text(self) -> str:
        """For people."""
        lines = [
            f"{self.seconds:.0f} s, {self.played} scenes, {self.resets} RSTs in three namespaces",
            f"before {self.before}, after {self.after}",
            self.end,
        ]
        return "\n".join(lines + (self.problems()[:40] or ["nothing missing, double or invented"]))


def compared(entry: Json) -> Json:
    """What an entry is compared by: an hour's entries as a whole take gigabytes."""
    kept = {name: sys.intern(entry[name]) for name in ("kind", "direction")}
    kept |= {name: entry[name] for name in ("id", "amends", "netns", "family")}
    return kept | {
        "rst": {"raw": entry["rst"]["raw"]},
        "remote": {"port": entry["remote"]["port"]},
    }


def soak(seconds: float, rate: float, seed: int = 1) -> Result:
    """Play scenes for so long, at most so many a second, beside tcpdump; and compare.

    Raises:
        AssertionError: a program did not start, or a scene did not play.
    """
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder, routed_lab("rstsoak") as lab:
        mix.prepare(lab)
        # others' resets on this machine would fill the memory that is watched
        fence = Fence(lab)
        ours = [word for role in (*ROLES, "fence") for word in ("--netns", lab.name(role))]
        tracer = Tracer("--kind", "all", *ours, keep=compared)
        dumps = {role: Dump(lab, role, Path(folder) / f"{role}.pcap", RSTS) for role in ROLES}
        try:
            fence.cross(tracer)
            base = {role: out_rsts(lab, role) for role in ROLES}
            began = time.monotonic()
            result = Result(seconds, 0)
            pace = threading.Event()  # nobody sets it: a rate, not a synchronisation
            while (spent := time.monotonic() - began) < seconds:
                mix.play(lab, chance)
                result.played += 1
                if result.before is None and spent >= min(WARM_S, seconds / 3):
                    result.before = Sizes.of(tracer)
                pace.wait(max(0.0, result.played / rate - (time.monotonic() - began)))
            result.after = Sizes.of(tracer)
            mix.mark(lab)
            paths = [dump.path for dump in dumps.values()]
            poll_until(lambda: all(mix.is_marked(seen(path)) for path in paths), "the mark")
            fence.cross(tracer)
            counters = {role: out_rsts(lab, role) - base[role] for role in ROLES}
        finally:
            for dump in dumps.values():
                dump.stop()
            tracer.stop()
        result.end = tracer.status.splitlines()[-1]
        for role in ROLES:
            netns, path = lab.inode(role), dumps[role].path
            result.resets += sum(seen(path).values())
            result.wrong[role] = differences(tracer.entries, netns, path)
            stack = [
                entry
                for entry in tracer.entries
                if entry.get("netns") == netns
                and entry["amends"] is None
                and entry["kind"] in ("sent-passive", "sent-active")
            ]
            result.counted[role] = counters[role], len(stack)
    return result
