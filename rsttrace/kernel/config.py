"""What the tracer asks of the kernel side, and what it gets back: plain data between the two
processes (the tracer and the loading child)."""

from __future__ import annotations

from dataclasses import dataclass, field

from rsttrace.model import Kind

KIND_NUMBERS = {kind: number for number, kind in enumerate(Kind)}
"""How kinds are numbered in rst_event.kind; handed to C as KIND_<NAME>."""

LATE = len(Kind)
"""rst_event.kind of what is no RST: a packet that came after one (KIND_LATE)."""

COUNT_SHOWN, COUNT_FILTERED, COUNT_LOST = range(3)
"""Columns of the `counts` map, a row for each kind; the same order as the enum in bpf/maps.c."""
COUNT_KINDS = 3

RING_PAGES = 2048
"""Ring buffer size in 4 KiB pages (8 MiB): 9,000 events while Python handles a chunk of 64."""


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
    flows: int = 16384
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
