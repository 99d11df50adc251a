"""Compiling the BPF program, with everything it is told at compile time."""

from __future__ import annotations

import os
import platform
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rsttrace.errors import KernelError, PrivilegeError
from rsttrace.kernel import bcc, cache, config, layout, sources, stubs, syscalls, typed
from rsttrace.kernel.facts import Facts
from rsttrace.kernel.hooks import Plan
from rsttrace.kernel.image import Compiled
from rsttrace.kernel.protocol import Request

if TYPE_CHECKING:
    from importlib.abc import Traversable


def config_header(
    request: Request, facts: Facts, plan: Plan, *, follows: bool, direct: bool
) -> str:
    """The text of config.h: everything the C side is told at compile time.

    `follows`: the reason of an active reset comes behind it. `direct`: the hooks of
    `hooks.PACKET_LAYER` load by themselves what they read (`typed`).
    """
    enums = facts.enums()
    drop = enums["skb_drop_reason"]
    mask = 0
    for kind, number in config.KIND_NUMBERS.items():
        mask |= (kind.value in request.kinds) << number
    knows = facts.knows()
    active = facts.arguments("tcp_send_active_reset")
    answer = facts.arguments("tcp_v4_send_reset")

    def position(arguments: list[str] | None, name: str) -> int:
        return arguments.index(name) + 1 if arguments and name in arguments else 0

    values = {
        **config.constants(),
        "KIND_MASK": mask,
        "RING_PAGES": config.RING_PAGES,
        "FLOWS": request.flows,
        "UNCONFIRMED": max(1, request.flows // 2),
        "RATE": request.rate,
        "BASELINE": int(request.baseline),
        "PAYLOAD": request.payload,
        "FILTER_NETNS": int(bool(request.netns)),
        "FILTER_PORTS": int(bool(request.ports)),
        "FILTER_NETS": int(bool(request.nets)),
        "HAVE_DROP_REASON": int(knows["drop_reason"]),
        "HAVE_RX_SK": int(knows["drop_socket"]),
        "SEND_RESET_HAS_REASON": int(knows["reset_reason"]),
        "TCP_RESET_HAS_SKB": int(knows["reset_skb"]),
        "SEND_RESET_REASON_ARG": position(answer, "reason"),
        "ACTIVE_RESET_REASON_ARG": position(active, "reason"),
        "PLAN_KPROBES": int(plan is Plan.KPROBES),
        "KERNEL_HZ": facts.hz(),
        **typed.numbers(facts.btf if direct else None),
        "ACTIVE_REASON_FOLLOWS": int(follows and plan is Plan.TRACEPOINTS),
        # No reason has the value 0xfffffffe: a name that this kernel lacks never matches.
        **{f"DROP_{name}": drop.get(name, 0xFFFFFFFE) for name in ("NO_SOCKET", "OTHERHOST")},
    }
    return config.defines(values)


@dataclass(frozen=True)
class Texts:
    """All that the compiler is given: the program, and the headers that are made for it."""

    program: str
    config: str
    offsets: str
    flags: tuple[str, ...]


def texts(facts: Facts, config_text: str) -> Texts:
    """What is to be compiled.

    Raises:
        KernelError: the kernel lacks something that is needed.
    """
    check = f'_Static_assert(sizeof(struct rst_event) == {layout.event_size()}, "layout");\n'
    return Texts(
        program=sources.joined(layout.bpf_directory(), check),
        config=config_text,
        offsets=facts.offsets(),
        # An unnamed struct member of a tagged type needs the last (kernels from 6.19's ns_tree on).
        flags=("-w", "-g0", "-fms-extensions"),
    )


def kept_name(of: Texts) -> str:
    """The name under which `cache` keeps what these compile to."""
    headers = [file.read_text() for file in _headers()]
    made = [of.program, of.config, of.offsets, *of.flags, *headers, *stubs.STUBS.values()]
    return cache.key(made, bcc.files())


def _headers() -> list[Traversable]:
    """The headers of ``bpf/``."""
    found = [file for file in layout.bpf_directory().iterdir() if file.name.endswith(".h")]
    return sorted(found, key=lambda file: file.name)


def _included(directory: Path) -> Path:
    """Where the compiler finds the headers of ``bpf/``: if ours is a zip file, copied there."""
    bpf = layout.bpf_directory()
    if isinstance(bpf, Path):
        return bpf
    for file in _headers():
        (directory / file.name).write_text(file.read_text())
    return directory


def check_maps() -> None:
    """Whether we may have BPF maps.

    Raises:
        PrivilegeError: the kernel says no.
    """
    # union bpf_attr: map_type (BPF_MAP_TYPE_ARRAY), key_size, value_size, max_entries
    attributes = struct.pack("=4I", 2, 4, 8, 1)
    try:
        os.close(syscalls.bpf(syscalls.BPF_MAP_CREATE, attributes))
    except PermissionError as error:
        rows = Path("/proc/self/uid_map").read_text().split()
        # What user_namespaces(7) shows in the first one.
        first = rows == ["0", "0", "4294967295"]
        hint = (
            "give the container CAP_BPF and CAP_PERFMON, and a seccomp profile that allows bpf(2)"
            if first
            else "root of a user namespace may not: run it on the node itself"
        )
        raise PrivilegeError(f"the kernel refuses a BPF map: {error.strerror}", hint=hint) from None


def compile_program(given: Texts, facts: Facts, directory: Path) -> Compiled:
    """Compile the BPF program, in a directory of its own.

    Raises:
        DependencyError: there is no bcc.
        PrivilegeError: the kernel lets us have no map.
        KernelError: the compiler refuses; its own words are on our stderr.
    """
    found = bcc.import_bcc()
    (directory / "config.h").write_text(given.config)
    (directory / "offsets.h").write_text(given.offsets)
    flags = [*given.flags, f"-I{directory}", f"-I{_included(directory)}"]
    if facts.btf is not None:
        stubs.write(directory / "kernel")
        os.environ["BCC_KERNEL_SOURCE"] = str(directory / "kernel")
    else:
        os.environ.pop("BCC_KERNEL_SOURCE", None)  # bcc finds them by the running kernel's release
    try:
        made = found.BPF(text=given.program, cflags=flags)
    except Exception as error:
        check_maps()  # bcc makes them while it compiles, and says no more than that it failed
        raise KernelError(
            f"the BPF program does not compile for {platform.release()}: {error}",
            hint="run `rsttrace doctor -v` and report its output",
        ) from None
    return Compiled(made, found, str(getattr(found, "__version__", "unknown")))
