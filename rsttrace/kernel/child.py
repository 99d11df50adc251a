"""The loading child: compiles, loads and attaches, hands the file descriptors over, and exits.

Run as a program of its own, so that the tracer never maps LLVM (110 MB less), and a compiler abort
is an error message instead of a dead tracer. It speaks with the tracer over one socket: a JSON
request in; out a JSON answer, with the descriptors of three maps (the ring buffer, the counters,
the flows) and of every attached probe. The probes live as long as the tracer holds the descriptors;
nothing is pinned.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import struct
import sys
from pathlib import Path

from rsttrace.errors import KernelError, RsttraceError
from rsttrace.kernel import cache, cgroup, hooks, image, kprobe, lockdown, tracepoint, typed
from rsttrace.kernel.btf import Btf
from rsttrace.kernel.facts import Facts
from rsttrace.kernel.image import RAW_TRACEPOINT, Program
from rsttrace.kernel.program import Texts, compile_program, config_header, kept_name, texts
from rsttrace.kernel.protocol import MAPS, HookStatus, Report, Request, receive_request, send_answer
from rsttrace.kernel.workplace import workplace


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


def load_untyped(program: Program, hook: hooks.Hook, btf: Btf | None) -> int:
    """Load the program of a hook that is none of the packet layer's; returns its descriptor.

    `btf`: see `attach_all`.

    Raises:
        OSError: the kernel refuses.
    """
    kind = image.CGROUP_SKB if hook.cgroup else image.KPROBE if hook.kprobe else RAW_TRACEPOINT
    if btf is None:
        return program.load(hook.program, kind)
    return typed.load_untyped(program.code(hook.program), hook.program, kind, btf)


def load_all(
    program: Program, chosen: tuple[hooks.Hook, ...], btf: Btf | None
) -> list[int | OSError]:
    """Load the hooks' programs: of each the descriptor, or why the kernel refuses it.

    The packet layer's take the verifier as long as all others together: they are loaded beside
    them, each in a thread.

    `btf`: see `attach_all`.
    """
    typed_ones = {
        place: typed.Loading(program.code(hook.program), hook.program, hook.target, btf)
        for place, hook in enumerate(chosen)
        if btf is not None and hook.target in hooks.PACKET_LAYER
    }
    loaded: list[int | OSError] = []
    for place, hook in enumerate(chosen):
        try:
            loaded.append(-1 if place in typed_ones else load_untyped(program, hook, btf))
        except OSError as error:
            loaded.append(error)
    for place, loading in typed_ones.items():
        loaded[place] = loading.outcome()
    return loaded


def attach(
    hook: hooks.Hook, loaded: int | OSError, functions: frozenset[str], btf: Btf | None
) -> tuple[HookStatus, int]:
    """Attach one hook: its status, and the probe's descriptor.

    If it must wait for its module, the descriptor is the loaded program's; -1 where there is none.

    `btf`: see `attach_all`.
    """
    status = HookStatus(hook.target, hook.kprobe, False, hook.unseen)
    if isinstance(loaded, OSError):
        status.error, status.refused = f"the kernel refuses the program: {loaded}", True
        return status, -1
    if hook.kprobe and hook.target not in functions:
        status.error = "this kernel has no such function"
        if hook.module is None:
            return status, -1
        status.error = f"will be when the module {hook.module} is loaded"
        status.module = hook.module
        return status, os.dup(loaded)
    try:
        if hook.cgroup:
            descriptor = cgroup.attach(loaded)
        elif hook.kprobe:
            descriptor = kprobe.attach(loaded, hook.target)
        else:
            typed_one = btf is not None and hook.target in hooks.PACKET_LAYER
            descriptor = tracepoint.attach(loaded, "" if typed_one else hook.target)
    except Exception as error:
        status.error = str(error) or type(error).__name__
        return status, -1
    status.attached = True
    return status, descriptor


def fill_maps(program: Program, request: Request) -> None:
    """Write the filter maps, and the seed of flows' sums, before anything is attached."""
    shelves = program.map("shelves")
    known = image.made_like(shelves)
    seed = os.urandom(8).ljust(known.value_size, b"\0")
    image.update(shelves, struct.pack("=I", known.entries - 1), seed)
    one = b"\1"
    for value in request.netns:
        image.update(program.map("only_netns"), struct.pack("=I", value), one)
    for value in request.ports:
        image.update(program.map("only_ports"), struct.pack("=H", value), one)
    for address, prefix in request.nets:
        key = struct.pack("=I", prefix) + bytes.fromhex(address)
        image.update(program.map("only_nets"), key, one)


def attach_all(
    program: Program,
    chosen: tuple[hooks.Hook, ...],
    functions: frozenset[str],
    btf: Btf | None,
) -> tuple[list[HookStatus], list[int]]:
    """Load and attach all hooks: their statuses, and the descriptors of those that have one.

    `btf`: the kernel's, where the packet layer was compiled to know the types of its arguments.
    """
    statuses, descriptors = [], []
    for hook, loaded in zip(chosen, load_all(program, chosen, btf)):
        status, descriptor = attach(hook, loaded, functions, btf)
        statuses.append(status)
        if descriptor >= 0:
            descriptors.append(descriptor)
    return statuses, descriptors


def kept(given: Texts, facts: Facts, request: Request) -> tuple[Path | None, str, Program | None]:
    """Where this program is kept between starts, its name there, and it, if it is there.

    Headers that are installed may change under the same kernel: what they made is not kept.
    """
    where = cache.folder() if facts.btf is not None else None
    if where is None:
        return None, "", None
    name = kept_name(given)
    found = cache.read(where, name) if request.kept else None
    if found is None:
        return where, name, None
    with contextlib.suppress(OSError, ValueError):  # before 5.11 maps count as locked memory
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
    try:
        return where, name, image.Loaded(found)
    except OSError:
        return where, name, None


Armed = tuple[Program, list[HookStatus], list[int]]


def arm(
    given: Texts,
    facts: Facts,
    request: Request,
    chosen: tuple[hooks.Hook, ...],
    functions: frozenset[str],
    btf: Btf | None,
) -> Armed:
    """Load and attach all hooks of a program that was kept, else of one compiled now.

    `btf`: see `attach_all`.

    Raises: see `compile_program` and `workplace`.
    """
    where, name, program = kept(given, facts, request)
    if program is not None:
        fill_maps(program, request)
        statuses, descriptors = attach_all(program, chosen, functions, btf)
        if not any(status.refused for status in statuses):
            return program, statuses, descriptors
        for descriptor in descriptors:  # the reason may be in the file: make sure
            os.close(descriptor)
    with workplace() as directory:
        made = compile_program(given, facts, directory)
    if where is not None:
        cache.write(where, name, made.image({hook.program for hook in chosen}))
    fill_maps(made, request)
    return made, *attach_all(made, chosen, functions, btf)


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


def load(request: Request) -> tuple[Report, list[int]]:
    """Compile or take what is kept, load and attach: report and descriptors.

    The descriptors are those of `MAPS`, and, in the report's order, one for each
    hook that is attached (the probe) or waits for its module (the program).

    Raises:
        RsttraceError: nothing can be traced; the message says why.
    """
    facts = Facts()
    plan = choose_plan(request.plan)
    knows = facts.knows()
    chosen = hooks.for_plan(plan, knows, payload=request.payload > 0)
    functions = kernel_functions() if plan is hooks.Plan.KPROBES else frozenset()
    follows, btf = True, facts.btf
    while True:
        header = config_header(request, facts, plan, follows=follows, direct=btf is not None)
        program, statuses, descriptors = arm(
            texts(facts, header), facts, request, chosen, functions, btf
        )
        failed = {status.target for status in statuses if not status.attached}
        refused = any(status.refused for status in statuses)
        if btf is not None and (refused or failed & set(hooks.PACKET_LAYER)):
            btf = None  # the kernel may still take what reads by helpers
        elif follows and "tcp_send_reset" in failed and plan is hooks.Plan.TRACEPOINTS:
            follows = False  # no reason follows: compile again, so that no event waits for one
        else:
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
        bcc_version=program.bcc_version,
        kept=isinstance(program, image.Loaded),
    )
    maps = [program.map(name) for name in MAPS]
    return report, [*maps, *descriptors]


def serve(channel: socket.socket) -> None:
    """Answer the one request that comes on the channel."""
    request = receive_request(channel)
    if request is None:
        return  # the tracer was killed meanwhile
    answer: Report | RsttraceError
    descriptors: list[int] = []
    try:
        answer, descriptors = load(request)
    except RsttraceError as error:
        answer = error
    send_answer(channel, answer, descriptors)


def main() -> None:
    """Serve on the socket whose number is the first argument."""
    with contextlib.suppress(ConnectionError):  # the tracer was killed meanwhile
        serve(socket.socket(fileno=int(sys.argv[1])))
    os._exit(0)  # bcc's atexit handlers would detach; the descriptors are the tracer's now


if __name__ == "__main__":
    main()
