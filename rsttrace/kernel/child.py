"""The loading child: compiles, loads and attaches, hands the file descriptors over, and exits.

Run as a program of its own, so that the tracer never maps LLVM (110 MB less), and a compiler abort
is an error message instead of a dead tracer. It speaks with the tracer over one socket: a JSON
request in; out a JSON answer, with the descriptors of the ring buffer, the counters and every
attached probe. The probes live as long as the tracer holds the descriptors; nothing is pinned.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import socket
import struct
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # started by path in isolated mode: find our own package
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from rsttrace.errors import DependencyError, KernelError, RsttraceError
from rsttrace.kernel import cgroup, config, headers, hooks, kprobe, layout, sources
from rsttrace.kernel.btf import Btf

BCC_HINT = (
    "install it from the distribution (Debian, Ubuntu: python3-bpfcc; Fedora, Rocky: python3-bcc); "
    'PyPI\'s "bcc" is another project. In a virtual environment use --system-site-packages, '
    "or set RSTTRACE_BCC_PATH to the directory that holds the bcc package"
)

SYSTEM_PACKAGES = (
    "/usr/lib/python3/dist-packages",
    f"/usr/lib/python3.{sys.version_info[1]}/site-packages",
)

# What bcc includes from a kernel source tree; this much is enough (measured with bcc 0.26).
STUBS = {
    "linux/kconfig.h": "#define CONFIG_BPF_SYSCALL 1\n",
    "linux/types.h": """\
typedef unsigned char __u8; typedef signed char __s8;
typedef unsigned short __u16; typedef short __s16;
typedef unsigned int __u32; typedef int __s32;
typedef unsigned long long __u64; typedef long long __s64;
typedef __u8 u8; typedef __u16 u16; typedef __u32 u32; typedef __u64 u64;
typedef __s8 s8; typedef __s16 s16; typedef __s32 s32; typedef __s64 s64;
typedef __u16 __be16; typedef __u32 __be32; typedef __u64 __be64;
typedef __u16 __le16; typedef __u32 __le32; typedef __u64 __le64;
typedef __u16 __sum16; typedef __u32 __wsum;
typedef unsigned long size_t; typedef unsigned long uintptr_t;
typedef int pid_t; typedef _Bool bool;
#define __aligned_u64 __u64 __attribute__((aligned(8)))
#define NULL ((void *)0)
struct pt_regs;
""",
    "linux/version.h": (
        "#define LINUX_VERSION_CODE 0\n"
        "#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))\n"
    ),
    "asm/page.h": "#define PAGE_SIZE 4096\n",
    **dict.fromkeys(
        (
            "linux/bpf.h",
            "linux/bpf_common.h",
            "linux/log2.h",
            "linux/ptrace.h",
            "linux/sched.h",
            "net/sock.h",
            "uapi/linux/bpf.h",
            "uapi/linux/if_packet.h",
            "uapi/linux/ptrace.h",
        ),
        "",
    ),
}

HEADERS = (
    "linux/ptrace.h",
    "linux/fs.h",
    "linux/cgroup.h",
    "linux/kernfs.h",
    "linux/skbuff.h",
    "linux/netdevice.h",
    "linux/tcp.h",
    "net/net_namespace.h",
    "net/sock.h",
    "net/inet_sock.h",
    "net/route.h",
    "net/ip6_fib.h",
)

ARGUMENTS = {
    "x86_64": ("di", "si", "dx", "cx"),
    "aarch64": ("regs", "regs+8", "regs+16", "regs+24"),
}
"""struct pt_regs members that carry a function's first arguments (user_pt_regs on arm64)."""

FIELD_LINE = re.compile(r"^FIELD\((\w+), (\w+), ([\w.]+)\)( OPTIONAL)?", re.MULTILINE)


def import_bcc() -> Any:
    """The real bcc.

    Raises:
        DependencyError: it is missing, is PyPI's impostor, or its library does not load.
    """
    # The packages of the distribution come last: they never hide what rsttrace was installed with.
    sys.path[:0] = [p for p in (os.environ.get("RSTTRACE_BCC_PATH"),) if p]
    sys.path += [p for p in SYSTEM_PACKAGES if p not in sys.path]
    whole = list(sys.path)
    impostor = None
    for _ in range(2):
        try:
            import bcc
        except ImportError as error:
            if impostor:
                break
            raise DependencyError(f"bcc cannot be imported: {error}", hint=BCC_HINT) from None
        if hasattr(bcc, "BPF"):
            sys.path[:] = whole  # the impostor's directory may hold packages that we need
            return bcc
        if bcc.__file__ is None:  # a directory without __init__.py: no package at all
            raise DependencyError(
                f"the bcc found in {', '.join(bcc.__path__)} is an empty directory", hint=BCC_HINT
            )
        impostor = Path(bcc.__file__).parent
        for name in [n for n in sys.modules if n == "bcc" or n.startswith("bcc.")]:
            del sys.modules[name]
        sys.path[:] = [p for p in sys.path if Path(p) != impostor.parent]
    raise DependencyError(
        f"the bcc in {impostor} is not the BPF Compiler Collection "
        "(it is PyPI's package of the same name)",
        hint=f"pip uninstall bcc, then {BCC_HINT}",
    )


def argument_member(number: int) -> tuple[str, int]:
    """(member of struct pt_regs, bytes to add) that holds argument `number` (from 1)."""
    members = ARGUMENTS.get(platform.machine())
    if members is None:
        raise KernelError(
            f"rsttrace does not know how {platform.machine()} passes function arguments",
            hint="use --plan tracepoints",
        )
    member, _, add = members[number - 1].partition("+")
    return member, int(add or 0)


class Facts:
    """What the running kernel looks like, from BTF or, failing that, from installed headers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.missing: list[str] = []
        self.source = "btf"
        try:
            self.btf: Btf | None = Btf()
        except RsttraceError as error:
            self.btf = None
            self.source = "headers"
            if headers.directory() is None:
                raise KernelError(
                    f"{error.what}; and no kernel headers for {platform.release()} are installed",
                    hint=f"{error.hint or 'use a kernel with BTF'} (Debian, Ubuntu: "
                    f"linux-headers-{platform.release()}; Fedora, Rocky: kernel-devel)",
                ) from None

    def fields(self) -> list[tuple[str, str, str, bool]]:
        """(name, structure, member, optional) of every line of fields.h."""
        text = (layout.bpf_directory() / "fields.h").read_text()
        return [(n, s, m, bool(o)) for n, s, m, o in FIELD_LINE.findall(text)]

    def offsets(self, without: frozenset[str] = frozenset()) -> str:
        """The text of offsets.h: OFF_<name> and SIZE_<name> of every field.

        `without`: optional fields that the headers turned out not to have.
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
            elif name in without:
                self.missing.append(name)
                lines.append(f"#define OFF_{name} -1\n#define SIZE_{name} 0")
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

    def knows(self) -> dict[str, bool]:
        """What this kernel tells of a reset, by the names of `hooks.KNOWLEDGE`."""
        kfree = self.arguments("btf_trace_kfree_skb") or []
        return {
            "drop_reason": len(kfree) >= 3,
            "drop_socket": len(kfree) >= 4,
            "reset_reason": len(self.arguments("btf_trace_tcp_send_reset") or []) >= 3,
            "reset_skb": "skb" in (self.arguments("tcp_reset") or []),
        }


def config_header(request: dict[str, Any], facts: Facts, plan: hooks.Plan, follows: bool) -> str:
    """The text of config.h: everything the C side is told at compile time."""
    enums = facts.enums()
    drop = enums["skb_drop_reason"]
    mask = 0
    for kind, number in config.KIND_NUMBERS.items():
        mask |= (kind.value in request["kinds"]) << number
    knows = facts.knows()
    active = facts.arguments("tcp_send_active_reset")
    answer = facts.arguments("tcp_v4_send_reset")

    def position(arguments: list[str] | None, name: str) -> int:
        return arguments.index(name) + 1 if arguments and name in arguments else 0

    values = {
        **config.constants(),
        "KIND_MASK": mask,
        "RING_PAGES": config.RING_PAGES,
        "FLOWS": request["flows"],
        "BASELINE": int(request["baseline"]),
        "PAYLOAD": request["payload"],
        "FILTER_NETNS": int(bool(request["netns"])),
        "FILTER_PORTS": int(bool(request["ports"])),
        "FILTER_NETS": int(bool(request["nets"])),
        "HAVE_DROP_REASON": int(knows["drop_reason"]),
        "HAVE_RX_SK": int(knows["drop_socket"]),
        "SEND_RESET_HAS_REASON": int(knows["reset_reason"]),
        "TCP_RESET_HAS_SKB": int(knows["reset_skb"]),
        "SEND_RESET_REASON_ARG": position(answer, "reason"),
        "ACTIVE_RESET_REASON_ARG": position(active, "reason"),
        "PLAN_KPROBES": int(plan is hooks.Plan.KPROBES),
        "ACTIVE_REASON_FOLLOWS": int(follows and plan is hooks.Plan.TRACEPOINTS),
        # No reason has the value 0xfffffffe: a name that this kernel lacks never matches.
        **{f"DROP_{name}": drop.get(name, 0xFFFFFFFE) for name in ("NO_SOCKET", "OTHERHOST")},
    }
    return config.defines(values)


def write_tree(directory: Path) -> None:
    """The stub kernel tree that BCC_KERNEL_SOURCE names."""
    for name, text in STUBS.items():
        path = directory / "include" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#pragma once\n{text}")
    (directory / "include/generated/uapi/linux").mkdir(parents=True, exist_ok=True)


def compile_program(bcc: Any, facts: Facts, directory: Path, config_text: str) -> Any:
    """Compile the BPF program.

    Raises:
        KernelError: the compiler refuses; its own words are on our stderr.
    """
    bpf = layout.bpf_directory()
    (directory / "config.h").write_text(config_text)
    (directory / "offsets.h").write_text(facts.offsets())
    # An unnamed struct member of a tagged type needs it (kernels from 6.19's ns_tree on).
    flags = ["-w", "-g0", "-fms-extensions", f"-I{directory}", f"-I{bpf}"]
    text = sources.joined(
        bpf, f'_Static_assert(sizeof(struct rst_event) == {layout.event_size()}, "layout");\n'
    )
    if facts.btf is not None:
        write_tree(directory / "kernel")
        os.environ["BCC_KERNEL_SOURCE"] = str(directory / "kernel")
    else:
        os.environ.pop("BCC_KERNEL_SOURCE", None)  # bcc finds them by the running kernel's release
    try:
        return bcc.BPF(text=text, cflags=flags)
    except Exception as error:
        raise KernelError(
            f"the BPF program does not compile for {platform.release()}: {error}",
            hint="run `rsttrace doctor -v` and report its output",
        ) from None


def kernel_functions() -> frozenset[str]:
    """Names of the functions that the running kernel and its modules have now."""
    wanted = {hook.target for hook in hooks.HOOKS if hook.kprobe}
    found = set()
    with open("/proc/kallsyms", encoding="ascii", errors="replace") as symbols:
        for line in symbols:
            name = line.split(None, 3)[2]
            if name in wanted:
                found.add(name)
    return frozenset(found)


def choose_plan(wanted: str) -> hooks.Plan:
    """The plan to run.

    Raises:
        KernelError: kprobes were asked for and this kernel has none.
    """
    if wanted == "auto":
        return hooks.Plan.KPROBES if kprobe.available() else hooks.Plan.TRACEPOINTS
    plan = hooks.Plan(wanted)
    if plan is hooks.Plan.KPROBES and not kprobe.available():
        raise KernelError(
            "this kernel has no kprobes (CONFIG_KPROBE_EVENTS is off)",
            hint="use --plan tracepoints, or leave --plan out",
        )
    return plan


def attach(
    bcc: Any, program: Any, hook: hooks.Hook, functions: frozenset[str]
) -> tuple[config.HookStatus, int]:
    """Load and attach one hook: its status, and the probe's descriptor.

    If it must wait for its module, the descriptor is the loaded program's; -1 where there is none.
    """
    status = config.HookStatus(hook.target, hook.kprobe, False, hook.unseen)
    try:
        function = program.load_func(
            hook.program,
            bcc.BPF.CGROUP_SKB
            if hook.cgroup
            else bcc.BPF.KPROBE
            if hook.kprobe
            else bcc.BPF.RAW_TRACEPOINT,
        )
    except Exception as error:
        status.error = f"the kernel refuses the program: {error}"
        return status, -1
    program.funcs.clear()  # one hooked twice is loaded twice: looked() in bpf/events.c
    if hook.kprobe and hook.target not in functions:
        status.error = "this kernel has no such function"
        if hook.module is None:
            return status, -1
        status.error = f"will be when the module {hook.module} is loaded"
        status.module = hook.module
        return status, os.dup(function.fd)
    try:
        if hook.cgroup:
            descriptor = cgroup.attach(function.fd)
        elif hook.kprobe:
            descriptor = kprobe.attach(function.fd, hook.target)
        else:
            # Not through program.attach_raw_tracepoint(): it takes one program a tracepoint.
            descriptor = bcc.lib.bpf_attach_raw_tracepoint(function.fd, hook.target.encode())
            if descriptor < 0:
                raise OSError("the kernel refuses the raw tracepoint")
    except Exception as error:
        status.error = str(error) or type(error).__name__
        return status, -1
    status.attached = True
    return status, descriptor


def fill_filters(program: Any, request: dict[str, Any]) -> None:
    """Write the filter maps, before anything is attached."""
    for name, values, pack in (
        ("only_netns", request["netns"], "<I"),
        ("only_ports", request["ports"], "<H"),
    ):
        table = program[name]
        for value in values:
            table[table.Key.from_buffer_copy(struct.pack(pack, value))] = table.Leaf(1)
    table = program["only_nets"]
    for address, prefix in request["nets"]:
        key = struct.pack("<I", prefix) + bytes.fromhex(address)
        table[table.Key.from_buffer_copy(key)] = table.Leaf(1)


def load(request: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    """Compile, load and attach: (report, descriptors).

    The descriptors are the ring buffer's, the counters', and, in the report's order, one for each
    hook that is attached (the probe) or waits for its module (the program).

    Raises:
        RsttraceError: nothing can be traced; the message says why.
    """
    bcc = import_bcc()
    directory = Path(request["directory"])
    facts = Facts(directory)
    plan = choose_plan(request["plan"])
    knows = facts.knows()
    chosen = hooks.for_plan(
        plan,
        2 + knows["drop_reason"] + knows["drop_socket"],
        payload=request["payload"] > 0,
    )
    functions = kernel_functions() if plan is hooks.Plan.KPROBES else frozenset()
    for follows in (True, False):
        program = compile_program(
            bcc, facts, directory, config_header(request, facts, plan, follows)
        )
        fill_filters(program, request)
        report = config.Report(
            plan=plan.value,
            source=facts.source,
            enums={
                enum: {value: name for name, value in names.items()}
                for enum, names in facts.enums().items()
            },
            knows=knows,
            missing_fields=sorted(set(facts.missing)),
            bcc_version=str(getattr(bcc, "__version__", "unknown")),
            event_size=layout.event_size(),
        )
        descriptors = [program["events"].map_fd, program["counts"].map_fd]
        for hook in chosen:
            status, descriptor = attach(bcc, program, hook, functions)
            report.hooks.append(status)
            if descriptor >= 0:
                descriptors.append(descriptor)
        failed = {hook.target for hook in report.hooks if not hook.attached}
        # Without tcp_send_reset no reason follows: compile again, so that no event waits for one.
        if "tcp_send_reset" not in failed or plan is hooks.Plan.KPROBES:
            break
        for descriptor in descriptors[2:]:
            os.close(descriptor)
    for target in hooks.PACKET_LAYER:
        if target in failed:
            if is_confidential():
                raise KernelError(
                    "kernel lockdown is in confidentiality mode, which forbids BPF programs to "
                    "read kernel memory",
                    hint="boot with lockdown=integrity (which tracing can live with) or without "
                    "lockdown: a running kernel cannot be unlocked",
                )
            why = next(hook.error for hook in report.hooks if hook.target == target)
            raise KernelError(
                f"the raw tracepoint {target} cannot be used: {why}",
                hint="run `rsttrace doctor` to see what this kernel allows",
            )
    return asdict(report), descriptors


def is_confidential() -> bool:
    """Whether the kernel is locked down so far that BPF may not read its memory.

    LOCKDOWN_BPF_READ_KERNEL, LOCKDOWN_KPROBES and LOCKDOWN_PERF belong to that mode
    (include/linux/security.h); to the milder one only writing does.
    """
    try:
        return "[confidentiality]" in Path("/sys/kernel/security/lockdown").read_text()
    except OSError:
        return False


def serve(channel: socket.socket, directory: Path) -> None:
    """Answer the one request that comes on the channel."""
    with channel.makefile("rb") as stream:
        line = stream.readline()
    if not line:
        return  # the tracer was killed meanwhile
    descriptors: list[int] = []
    try:
        answer, descriptors = load({**json.loads(line), "directory": str(directory)})
    except RsttraceError as error:
        answer = {"error": type(error).__name__, "what": error.what, "hint": error.hint}
    payload = json.dumps(answer).encode() + b"\n"
    socket.send_fds(channel, [struct.pack("<I", len(payload))], descriptors)
    channel.sendall(payload)


def main() -> None:
    """Serve on the socket whose number is the first argument, in the directory that is the second.

    The directory is removed here, too: whoever made it may have been killed.
    """
    directory = Path(sys.argv[2])
    try:
        serve(socket.socket(fileno=int(sys.argv[1])), directory)
    except ConnectionError:
        pass  # likewise
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    os._exit(0)  # bcc's atexit handlers would detach; the descriptors are the tracer's now


if __name__ == "__main__":
    main()
