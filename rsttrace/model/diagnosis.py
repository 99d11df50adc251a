"""What ``doctor`` finds: whether tracing works here, how, and what is missing."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Result(enum.Enum):
    """What a check came to."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Check:
    """One thing looked at; `hint` says what to do."""

    name: str
    result: Result
    text: str
    hint: str | None = None


@dataclass(frozen=True)
class HookCheck:
    """One hook: what it hooks (`type`: ``kprobe`` or ``raw tracepoint``), and whether that worked.

    `error` says why not, `unseen` what the user misses without it.
    """

    target: str
    type: str
    attached: bool
    error: str | None
    unseen: str


@dataclass(frozen=True)
class Loading:
    """How the programs were loaded and attached.

    `source` (of offsets) is ``btf`` or ``headers``; `missing_fields` are structure members that
    this kernel does not have; `knows` says what it tells of a reset, `unknown` what cannot be found
    out here, in words.
    """

    plan: str
    source: str
    bcc: str
    missing_fields: tuple[str, ...]
    knows: dict[str, bool]
    unknown: tuple[str, ...]
    hooks: tuple[HookCheck, ...]


@dataclass(frozen=True)
class Diagnosis:
    """The whole picture. `kernel` and `python` are versions, `machine` as uname(2) names it.

    `loading` is None where tracing does not work. `log` is what compiler and verifier printed.
    """

    kernel: str
    machine: str
    python: str
    checks: tuple[Check, ...]
    loading: Loading | None
    log: str

    @property
    def works(self) -> bool:
        """Whether tracing works here."""
        return self.loading is not None
