"""The loading child: compiles, loads and attaches, hands the file descriptors over, and exits.

Run as a program of its own, so that the tracer never maps LLVM (110 MB less), and a compiler abort
is an error message instead of a dead tracer. It speaks with the tracer over one socket: a JSON
request in; out a JSON answer, with the descriptors of the ring buffer, the counters and every
attached probe. The probes live as long as the tracer holds the descriptors; nothing is pinned.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import struct
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # started by path in isolated mode: find our own package
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from rsttrace.errors import KernelError, RsttraceError
from rsttrace.kernel import cgroup, config, hooks, kprobe, layout, lockdown, sources, stubs
from rsttrace.kernel.bcc import import_bcc
from rsttrace.kernel.facts import Facts
from rsttrace.kernel.protocol import HookStatus, Report, Request, receive_request, send_answer


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
        stubs.write(directory / "kernel")
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
) -> tuple[HookStatus, int]:
    """Load and attach one hook: its status, and the probe's descriptor.

    If it must wait for its module, the descriptor is the loaded program's; -1 where there is none.
    """
    status = HookStatus(hook.target, hook.kprobe, False, hook.unseen)
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


def fill_filters(program: Any, request: Request) -> None:
    """Write the filter maps, before anything is attached."""
    for name, values, pack in (
        ("only_netns", request.netns, "<I"),
        ("only_ports", request.ports, "<H"),
    ):
        table = program[name]
        for value in values:
            table[table.Key.from_buffer_copy(struct.pack(pack, value))] = table.Leaf(1)
    table = program["only_nets"]
    for address, prefix in request.nets:
        key = struct.pack("<I", prefix) + bytes.fromhex(address)
        table[table.Key.from_buffer_copy(key)] = table.Leaf(1)


def attach_all(
    bcc: Any, program: Any, chosen: tuple[hooks.Hook, ...], functions: frozenset[str]
) -> tuple[list[HookStatus], list[int]]:
    """Load and attach all hooks: their statuses, and the descriptors of those that have one."""
    statuses, descriptors = [], []
    for hook in chosen:
        status, descriptor = attach(bcc, program, hook, functions)
        statuses.append(status)
        if descriptor >= 0:
            descriptors.append(descriptor)
    return statuses, descriptors


def check_packet_layer(statuses: list[HookStatus]) -> None:
    """What nothing can be traced without is attached.

    Raises:
        KernelError: it is not; the message says why.
    """
    for status in statuses:
        if status.target not in hooks.PACKET_LAYER or status.attached:
            continue
        if lockdown.is_confidential():
            raise KernelError(
                "kernel lockdown is in confidentiality mode, which forbids BPF programs to "
                "read kernel memory",
                hint="boot with lockdown=integrity (which tracing can live with) or without "
                "lockdown: a running kernel cannot be unlocked",
            )
        raise KernelError(
            f"the raw tracepoint {status.target} cannot be used: {status.error}",
            hint="run `rsttrace doctor` to see what this kernel allows",
        )


def load(request: Request, directory: Path) -> tuple[Report, list[int]]:
    """Compile (in that directory), load and attach: the report, and descriptors.

    The descriptors are the ring buffer's, the counters', and, in the report's order, one for each
    hook that is attached (the probe) or waits for its module (the program).

    Raises:
        RsttraceError: nothing can be traced; the message says why.
    """
    bcc = import_bcc()
    facts = Facts()
    plan = choose_plan(request.plan)
    knows = facts.knows()
    chosen = hooks.for_plan(
        plan,
        2 + knows["drop_reason"] + knows["drop_socket"],
        payload=request.payload > 0,
    )
    functions = kernel_functions() if plan is hooks.Plan.KPROBES else frozenset()
    for follows in (True, False):
        program = compile_program(
            bcc, facts, directory, config_header(asdict(request), facts, plan, follows)
        )
        fill_filters(program, request)
        statuses, descriptors = attach_all(bcc, program, chosen, functions)
        failed = {status.target for status in statuses if not status.attached}
        # Without tcp_send_reset nothing would complete a held event: compile again without holding.
        if "tcp_send_reset" not in failed or plan is hooks.Plan.KPROBES:
            break
        for descriptor in descriptors:
            os.close(descriptor)
    check_packet_layer(statuses)
    report = Report(
        plan=plan.value,
        source=facts.source,
        hooks=statuses,
        enums={
            enum: {value: name for name, value in names.items()}
            for enum, names in facts.enums().items()
        },
        knows=knows,
        missing_fields=sorted(set(facts.missing)),
        bcc_version=str(getattr(bcc, "__version__", "unknown")),
    )
    return report, [program["events"].map_fd, program["counts"].map_fd, *descriptors]


def serve(channel: socket.socket, directory: Path) -> None:
    """Answer the one request that comes on the channel."""
    request = receive_request(channel)
    if request is None:
        return  # the tracer was killed meanwhile
    answer: Report | RsttraceError
    descriptors: list[int] = []
    try:
        answer, descriptors = load(request, directory)
    except RsttraceError as error:
        answer = error
    send_answer(channel, answer, descriptors)


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
