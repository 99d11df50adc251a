"""What the tracer asks of the kernel side, and what it gets back: plain data between the two
processes (the tracer and the loading child)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rsttrace import limits
from rsttrace.kernel import reasons
from rsttrace.model import Kind, Scope

KIND_NUMBERS = {kind: number for number, kind in enumerate(Kind)}
"""How kinds are numbered in rst_event.kind; handed to C as KIND_<NAME>."""

LATE = len(Kind)
"""rst_event.kind of what is no RST: a packet that came after one (KIND_LATE)."""

SCOPES = (Scope.NONE, Scope.FLOW, Scope.PEER)
"""Scopes by their number in rst_event.scope. An event begins as zeroes, with no baseline."""

COUNT_KINDS = 3
COUNT_SHOWN, COUNT_FILTERED, COUNT_LOST = range(COUNT_KINDS)
"""Columns of the `counts` map; it has a row for each kind, the last one is that of `LATE`."""

NO_REASON = 0xFFFFFFFF
"""rst_event.reason and drop_reason where the kernel gave none."""

RING_PAGES = 4096
"""Ring buffer size in 4 KiB pages (16 MiB): 9,000 events while Python handles a chunk of 64."""


def constants() -> dict[str, int]:
    """Numbers that both sides know, by their names in C: they are the same for every request."""
    return {
        **{f"KIND_{kind.name}": number for kind, number in KIND_NUMBERS.items()},
        "KIND_LATE": LATE,
        **{f"SCOPE_{scope.name}": number for number, scope in enumerate(SCOPES)},
        "COUNT_SHOWN": COUNT_SHOWN,
        "COUNT_FILTERED": COUNT_FILTERED,
        "COUNT_LOST": COUNT_LOST,
        "COUNT_KINDS": COUNT_KINDS,
        **{f"ST_{name}": number for number, name in reasons.STATES.items()},
        "NO_REASON": NO_REASON,
        "PEERS": limits.PEERS,
        "RECENT": limits.RECENT,
        "TTLS": limits.TTLS,
        "OTHER_TTL_FITS": limits.OTHER_TTL_FITS,
        "NEAR": limits.NEAR,
        "COPY_NS": limits.COPY_NS,
        "PEER_TTLS": limits.PEER_TTLS,
        "OPTIONS_READ": limits.OPTIONS_READ,
        "IDLE_REUSE_NS": limits.IDLE_REUSE_NS,
        "LATE_FOR_NS": limits.LATE_FOR_NS,
        "LATE_TOLD": limits.LATE_TOLD,
        "HANDSHAKES_TOLD": limits.HANDSHAKES_TOLD,
        "PAYLOAD_MAX": limits.PAYLOAD_MAX,
    }


def defines(values: Mapping[str, int]) -> str:
    """The text of a C header that defines them; to include it twice does no harm."""
    return "".join(f"#define {name} {n}\n" for name, n in values.items())


SYS_BPF = {"x86_64": 321, "aarch64": 280, "ppc64le": 361, "s390x": 351, "riscv64": 280}
"""The number of bpf(2), by machine."""


@dataclass(frozen=True)
class Request:
    """What to load.

    `kinds` are the kinds to emit; `nets` are (address as 16 bytes in hex, prefix length of 128),
    `ports` and `netns` are exact; empty means any. `plan` is ``auto``, ``kprobes`` or
    ``tracepoints``. `flows` bounds the baseline map (entries). `payload` is how many bytes of what
    a socket sent last are kept for its resets (0: nothing is looked at).
    """

    kinds: tuple[str, ...]
    nets: tuple[tuple[str, int], ...] = ()
    ports: tuple[int, ...] = ()
    netns: tuple[int, ...] = ()
    baseline: bool = True
    flows: int = limits.FLOWS
    plan: str = "auto"
    payload: int = 0


@dataclass
class HookStatus:
    """Whether a hook is attached; `error` says why not, `unseen` what that costs.

    `module`: not attached yet, but it will be when this module comes.
    """

    target: str
    kprobe: bool
    attached: bool
    unseen: str
    error: str | None = None
    module: str | None = None


@dataclass
class Report:
    """What the loading child found and did.

    `source` is ``btf`` or ``headers``; `enums` maps the kernel's enum names to value -> name;
    `knows` says what this kernel tells of a reset (`hooks.KNOWLEDGE`); `missing_fields` lists
    structure members that it does not have.
    """

    plan: str
    source: str
    hooks: list[HookStatus] = field(default_factory=list)
    enums: dict[str, dict[int, str]] = field(default_factory=dict)
    knows: dict[str, bool] = field(default_factory=dict)
    missing_fields: list[str] = field(default_factory=list)
    bcc_version: str = ""
    event_size: int = 0

    @property
    def attached(self) -> int:
        """How many hooks are on."""
        return sum(hook.attached for hook in self.hooks)
