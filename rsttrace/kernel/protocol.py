"""What the tracer asks of the loading child, and what it gets back: messages over one socket.

One JSON line each way; the answer comes with descriptors and has its length (4 bytes) before it.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from dataclasses import asdict, dataclass, field
from typing import Any

from rsttrace import errors, limits
from rsttrace.errors import KernelError, RsttraceError

MAX_DESCRIPTORS = 64

MAPS = ("events", "counts", "flows", "shelves", "rooms", "buckets")
"""The maps that the tracer is given; their descriptors come first, in this order."""

LENGTH = struct.Struct("=I")


@dataclass(frozen=True)
class Request:
    """What to load.

    `kinds` are the kinds to emit; `nets` are (address as 16 bytes in hex, prefix length of 128),
    `ports` and `netns` are exact; empty means any. `plan` is ``auto``, ``kprobes`` or
    ``tracepoints``. `flows` bounds the baseline map (entries). `payload` is how many bytes of what
    a socket sent last are kept for its resets (0: nothing is looked at). `rate` is how many resets
    a second that are alike are sent one by one, the others are counted (0: all are sent). Without
    `kept` the program is compiled, also where one is kept from an earlier start.
    """

    kinds: tuple[str, ...]
    nets: tuple[tuple[str, int], ...] = ()
    ports: tuple[int, ...] = ()
    netns: tuple[int, ...] = ()
    baseline: bool = True
    flows: int = limits.FLOWS
    plan: str = "auto"
    payload: int = 0
    rate: int = limits.RATE
    kept: bool = True


@dataclass
class HookStatus:
    """Whether a hook is attached; `error` says why not, `unseen` what that costs.

    `module`: not attached yet, but it will be when this module comes. `refused`: the kernel did not
    even load its program.
    """

    target: str
    kprobe: bool
    attached: bool
    unseen: str
    error: str | None = None
    module: str | None = None
    refused: bool = False


@dataclass
class Report:
    """What the loading child found and did.

    `source` is ``btf`` or ``headers``; `enums` maps the kernel's enum names to value -> name;
    `knows` says what this kernel tells of a reset (`knowledge.KNOWLEDGE`); `missing_fields` lists
    structure members that it does not have. `kept`: the program was compiled at an earlier start.
    """

    plan: str
    source: str
    hooks: list[HookStatus] = field(default_factory=list)
    enums: dict[str, dict[int, str]] = field(default_factory=dict)
    knows: dict[str, bool] = field(default_factory=dict)
    missing_fields: list[str] = field(default_factory=list)
    bcc_version: str = ""
    kept: bool = False

    @property
    def attached(self) -> int:
        """How many hooks are on."""
        return sum(hook.attached for hook in self.hooks)


def send_request(channel: socket.socket, request: Request) -> None:
    """Ask for something to be loaded."""
    channel.sendall(json.dumps(asdict(request)).encode() + b"\n")


def receive_request(channel: socket.socket) -> Request | None:
    """What is asked for; None if the asking end is gone."""
    with channel.makefile("rb") as stream:
        line = stream.readline()
    return Request(**json.loads(line)) if line.endswith(b"\n") else None


def send_answer(
    channel: socket.socket, answer: Report | RsttraceError, descriptors: list[int]
) -> None:
    """Answer with a report, or with why there is none."""
    if isinstance(answer, Report):
        message = asdict(answer)
    else:
        name = type(answer).__name__
        message = {"error": name, "what": answer.what, "hint": answer.hint}
    payload = json.dumps(message).encode() + b"\n"
    socket.send_fds(channel, [LENGTH.pack(len(payload))], descriptors)
    channel.sendall(payload)


def receive_answer(channel: socket.socket) -> tuple[Report | RsttraceError | None, list[int]]:
    """The answer and its descriptors; None without any if the child ended before a whole answer."""
    descriptors: list[int] = []
    payload = b""
    try:
        head, descriptors, _, _ = socket.recv_fds(channel, LENGTH.size, MAX_DESCRIPTORS)
        if len(head) == LENGTH.size:
            (length,) = LENGTH.unpack(head)
            while len(payload) < length and (part := channel.recv(length - len(payload))):
                payload += part
    except ConnectionError:
        payload = b""
    if not payload.endswith(b"\n"):
        for descriptor in descriptors:
            os.close(descriptor)
        return None, []
    return _answer(json.loads(payload)), list(descriptors)


def _answer(message: dict[str, Any]) -> Report | RsttraceError:
    if "error" in message:
        kind = getattr(errors, message["error"], KernelError)
        failure: RsttraceError = kind(message["what"], hint=message["hint"])
        return failure
    message["hooks"] = [HookStatus(**hook) for hook in message["hooks"]]
    message["enums"] = {  # JSON has no numbers as keys
        enum: {int(value): name for value, name in names.items()}
        for enum, names in message["enums"].items()
    }
    return Report(**message)
