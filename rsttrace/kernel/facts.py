"""What the running kernel looks like: member offsets, enums, arguments.

Only the loading child uses this.
"""

from __future__ import annotations

import platform
import re
import time

from rsttrace.errors import DependencyError, KernelError, RsttraceError
from rsttrace.kernel import bcc, headers, knowledge, layout
from rsttrace.kernel.btf import Btf

HEADERS = (
    "linux/ptrace.h",
    "linux/fs.h",
    "linux/cgroup.h",
    "linux/kernfs.h",
    "linux/skbuff.h",
    "linux/netdevice.h",
    "linux/sched.h",
    "linux/tcp.h",
    "net/inet_connection_sock.h",
    "net/inet_timewait_sock.h",
    "net/net_namespace.h",
    "net/sock.h",
    "net/inet_sock.h",
    "net/route.h",
    "net/ip6_fib.h",
)
"""Where the structures of bpf/fields.h are, for the compiler's offsetof()."""

ARGUMENTS = {
    "x86_64": ("di", "si", "dx", "cx"),
    "aarch64": ("regs", "regs+8", "regs+16", "regs+24"),
}
"""struct pt_regs members that carry a function's first arguments (user_pt_regs on arm64)."""

CLOCK_MONOTONIC_COARSE = 6
"""include/uapi/linux/time.h; Python has no name for it."""

FIELD_LINE = re.compile(r"^FIELD\((\w+), (\w+), ([\w.]+)\)( OPTIONAL)?", re.MULTILINE)
"""A line of bpf/fields.h: name, structure, member, whether it may be missing."""


def argument_member(number: int) -> tuple[str, int]:
    """(member of struct pt_regs, bytes to add) that holds argument `number` (from 1).

    Raises:
        KernelError: it is not known how this machine passes arguments.
    """
    members = ARGUMENTS.get(platform.machine())
    if members is None:
        raise KernelError(
            f"rsttrace does not know how {platform.machine()} passes function arguments",
            hint="use --plan tracepoints",
        )
    member, _, add = members[number - 1].partition("+")
    return member, int(add or 0)


def _missing(libbpf: DependencyError) -> DependencyError:
    """The error where there is no libbpf; one for both, if there is no bcc either."""
    if any(path.name == "version.py" for path in bcc.files()):
        return libbpf
    return DependencyError(
        "bcc is not installed, nor is libbpf",
        hint="install both from the distribution (Debian, Ubuntu: python3-bpfcc and libbpf1, or "
        'libbpf0 on old releases; Fedora, Rocky: python3-bcc and libbpf); PyPI\'s "bcc" is another '
        "project",
    )


class Facts:
    """What the running kernel looks like, from BTF or, failing that, from installed headers.

    Attributes:
        source: ``btf`` or ``headers``.
        btf: the kernel's type information; None without BTF.
        missing: optional fields that `offsets` has not found.

    Raises:
        KernelError: there is neither.
    """

    def __init__(self) -> None:
        self.missing: list[str] = []
        self.source = "btf"
        try:
            self.btf: Btf | None = Btf()
        except RsttraceError as error:
            self.btf = None
            self.source = "headers"
            if headers.directory() is None:
                if isinstance(error, DependencyError):
                    raise _missing(error) from None
                raise KernelError(
                    f"{error.what}; and no kernel headers for {platform.release()} are installed",
                    hint=f"{error.hint or 'use a kernel with BTF'} (Debian, Ubuntu: "
                    f"linux-headers-{platform.release()}; Fedora, Rocky: kernel-devel)",
                ) from None

    def fields(self) -> list[tuple[str, str, str, bool]]:
        """(name, structure, member, optional) of every line of fields.h."""
        text = (layout.bpf_directory() / "fields.h").read_text()
        return [(n, s, m, bool(o)) for n, s, m, o in FIELD_LINE.findall(text)]

    def offsets(self) -> str:
        """The text of offsets.h: OFF_<name> and SIZE_<name> of every field.

        Raises:
            KernelError: the kernel lacks a field that is not optional.
        """
        lines = []
        if self.btf is None:
            lines += [f"#include <{header}>" for header in HEADERS]
        for name, structure, member, optional in self.fields():
            add = 0
            if member.startswith("ARG"):
                member, add = argument_member(int(member[3:]))  # noqa: PLW2901
            if self.btf is not None:
                found = self.btf.field(structure, member)
                if found is None and not optional:
                    raise KernelError(
                        f"this kernel's struct {structure} has no {member}",
                        hint="report it with the kernel's version: rsttrace doctor -o json",
                    )
                offset = found.offset + add if found else -1
                size = 8 if member == "regs" else found.size if found else 0
                if found is None:
                    self.missing.append(name)
                lines.append(f"#define OFF_{name} {offset}\n#define SIZE_{name} {size}")
            else:
                size_of = f"sizeof(((struct {structure} *)0)->{member})"
                lines.append(
                    f"#define OFF_{name} ((int)__builtin_offsetof(struct {structure}, {member})"
                    f" + {add})\n#define SIZE_{name} {'8' if member == 'regs' else size_of}"
                )
        return "\n".join(lines) + "\n"

    def enums(self) -> dict[str, dict[str, int]]:
        """The reason enums: kernel name -> {enumerator without its prefix: value}."""
        found = {}
        for enum, prefix in (
            ("sk_rst_reason", "SK_RST_REASON_"),
            ("skb_drop_reason", "SKB_DROP_REASON_"),
        ):
            values = self.btf.enum(enum) if self.btf else headers.enum(enum)
            found[enum] = {
                (name[len(prefix) :] if name.startswith(prefix) else name): value
                for name, value in values.items()
            }
        return found

    def arguments(self, name: str) -> list[str] | None:
        """Names of a function's or a tracepoint's arguments; None if unknown."""
        return self.btf.parameters(name) if self.btf else headers.parameters(name)

    def hz(self) -> int:
        """How many jiffies a second has (CONFIG_HZ).

        The coarse clocks count them: their resolution is KTIME_LOW_RES (include/linux/hrtimer.h).
        """
        return round(1 / time.clock_getres(CLOCK_MONOTONIC_COARSE))

    def knows(self) -> dict[str, bool]:
        """What this kernel tells of a reset, by the names of `knowledge.KNOWLEDGE`."""
        return knowledge.look(self.arguments)
