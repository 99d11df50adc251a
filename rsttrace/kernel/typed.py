"""Programs that know their arguments' types: raw tracepoints through the kernel's BTF (tp_btf).

Such a program loads members of kernel structures by itself, where another one calls a helper for
each (`MEMBER()` in bpf/read.h). That is most of what a packet costs. The kernel has them since
9e15db66136a (5.5); bcc compiles them, but not every bcc can load them: that is done here.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading

from rsttrace.kernel import syscalls
from rsttrace.kernel.btf import KIND_FUNC, KIND_STRUCT, KIND_TYPEDEF, Btf
from rsttrace.kernel.image import INSTRUCTION, KPROBE, LICENSE, PROGRAM_NAME, RAW_TRACEPOINT

BPF_PROG_TYPE_TRACING, BPF_TRACE_RAW_TP = 26, 23  # include/uapi/linux/bpf.h

READABLE_AS = "pt_regs"
"""What memory is read as: a structure of plain numbers, on x86_64 and arm64 longer than what is
read of a packet at once. The numbers it holds may also be read in parts (btf_struct_walk())."""

KERNELS = ("bpf_rdonly_cast", "bpf_dynptr_from_skb")
"""The kernel's functions that are called."""

CALL, PSEUDO_KFUNC_CALL = 0x85, 2
"""An instruction's code, and its source register where it calls a kernel function by number."""

LOG_SIZE = 1 << 20
"""Bytes for what the verifier says; only asked for where it refuses."""


def numbers(btf: Btf | None) -> dict[str, int]:
    """What bpf/read.h is told: whether programs are typed, and how they may read any memory.

    Args:
        btf: the running kernel's; None: they are not typed.
    """
    if btf is None:
        return {"TYPED": 0, "RDONLY_CAST": 0, "READABLE_AS": 0, "DYNPTR_FROM_SKB": 0}
    cast, shape = _rdonly_cast(btf)
    return {
        "TYPED": 1,
        "RDONLY_CAST": cast,
        "READABLE_AS": shape,
        "DYNPTR_FROM_SKB": _dynptr_from_skb(btf),
    }


def _rdonly_cast(btf: Btf) -> tuple[int, int]:
    """The number of bpf_rdonly_cast(), if all our programs may call it, and that of `READABLE_AS`;
    else zeros. Tried, for programs whose arguments have no types may be held to more.
    """
    function, shape = btf.number("bpf_rdonly_cast", KIND_FUNC), btf.number(READABLE_AS, KIND_STRUCT)
    if not function or not shape:
        return 0, 0
    # r1 = r10; r2 = shape; call; r0 = *(u64 *)(r0 + 0); r0 = 0; exit
    trial = (
        (0xBF, 0xA1, 0, 0), (0xB7, 2, 0, shape), (CALL, PSEUDO_KFUNC_CALL << 4, 0, function),
        (0x79, 0x00, 0, 0), (0xB7, 0, 0, 0), (0x95, 0, 0, 0),
    )  # fmt: skip
    code = b"".join(INSTRUCTION.pack(*one) for one in trial)
    try:
        for kind in (RAW_TRACEPOINT, KPROBE):
            os.close(_load(code, "trial", kind))
    except OSError:
        return 0, 0
    return function, shape


def _dynptr_from_skb(btf: Btf) -> int:
    """The number of bpf_dynptr_from_skb(), if such programs may call it: tried, for a kernel may
    have it for others only (until ffc83860d8c0, 6.12). 0: they may not."""
    function = btf.number("bpf_dynptr_from_skb", KIND_FUNC)
    tracepoint = btf.number("btf_trace_netif_receive_skb", KIND_TYPEDEF)
    if function is None or tracepoint is None:
        return 0
    # r1 = *(u64 *)(r1 + 0); r2 = 0; r3 = r10; r3 += -16; call; r0 = 0; exit
    trial = (
        (0x79, 0x11, 0, 0), (0xB7, 2, 0, 0), (0xBF, 0xA3, 0, 0), (0x07, 3, 0, -16),
        (CALL, PSEUDO_KFUNC_CALL << 4, 0, function), (0xB7, 0, 0, 0), (0x95, 0, 0, 0),
    )  # fmt: skip
    code = b"".join(INSTRUCTION.pack(*one) for one in trial)
    try:
        os.close(_load(code, "trial", BPF_PROG_TYPE_TRACING, tracepoint))
    except OSError:
        return 0
    return function


def load(code: bytes, name: str, target: str, btf: Btf) -> int:
    """Load a compiled function for a raw tracepoint; returns the program's descriptor.

    Args:
        code: its instructions.
        name: of the function.
        target: the tracepoint.
        btf: the running kernel's.

    Raises:
        OSError: the kernel refuses; the verifier's words are on our stdout.
    """
    type_id = btf.number(f"btf_trace_{target}", KIND_TYPEDEF)
    if type_id is None:
        raise OSError(f"the kernel's BTF does not know the tracepoint {target}")
    return _load_told(code, name, btf, BPF_PROG_TYPE_TRACING, type_id)


def load_untyped(code: bytes, name: str, kind: int, btf: Btf) -> int:
    """The same of a function that is for any other kind of program (enum bpf_prog_type)."""
    return _load_told(code, name, btf, kind)


def _load_told(code: bytes, name: str, btf: Btf, kind: int, type_id: int = 0) -> int:
    for name_of in KERNELS:
        code = call_kernel(code, btf.number(name_of, KIND_FUNC) or 0)
    try:
        return _load(code, name, kind, type_id)
    except OSError:
        return _load(code, name, kind, type_id, LOG_SIZE)


class Loading(threading.Thread):
    """`load` on its way, in a thread: the verifier works on several at once, each on a CPU.

    Where a limit allows no thread more (pids.max, RLIMIT_NPROC), it is done at once.
    """

    def __init__(self, code: bytes, name: str, target: str, btf: Btf) -> None:
        super().__init__(name=name)
        self._asked = code, name, target, btf
        self._outcome: int | OSError = -1
        try:
            self.start()
        except RuntimeError:
            self.run()

    def run(self) -> None:
        """The thread's."""
        try:
            self._outcome = load(*self._asked)
        except OSError as error:
            self._outcome = error

    def outcome(self) -> int | OSError:
        """The program's descriptor, or why there is none."""
        if self.ident is not None:
            self.join()
        return self._outcome


def call_kernel(code: bytes, function: int) -> bytes:
    """The same instructions, but what calls that number calls the kernel function of that number.

    The compiler writes a helper's call; no helper has such a high number.
    """
    if not function:
        return code
    called = INSTRUCTION.pack(CALL, 0, 0, function)
    kernels = INSTRUCTION.pack(CALL, PSEUDO_KFUNC_CALL << 4, 0, function)
    size = INSTRUCTION.size
    return b"".join(
        kernels if code[at : at + size] == called else code[at : at + size]
        for at in range(0, len(code), size)
    )


def _load(code: bytes, name: str, kind: int, type_id: int = 0, log_size: int = 0) -> int:
    instructions = ctypes.create_string_buffer(code, len(code))
    log = ctypes.create_string_buffer(max(log_size, 1))
    licence = ctypes.create_string_buffer(LICENSE)
    # union bpf_attr, the member of BPF_PROG_LOAD: prog_type, insn_cnt, insns, license, log_level,
    # log_size, log_buf, kern_version, prog_flags, prog_name, prog_ifindex, expected_attach_type,
    # prog_btf_fd, func_info_rec_size, func_info, func_info_cnt, line_info_rec_size, line_info,
    # line_info_cnt, attach_btf_id
    attributes = struct.pack(
        "=IIQQIIQII16sIIIIQIIQII",
        kind, len(code) // INSTRUCTION.size, ctypes.addressof(instructions),
        ctypes.addressof(licence), int(log_size > 0), log_size,
        ctypes.addressof(log) if log_size else 0, 0, 0, name[:PROGRAM_NAME].encode(), 0,
        BPF_TRACE_RAW_TP if type_id else 0, 0, 0, 0, 0, 0, 0, 0, type_id,
    )  # fmt: skip
    try:
        return syscalls.bpf(syscalls.BPF_PROG_LOAD, attributes)
    except OSError:
        if log_size:
            print(log.value.decode(errors="replace"), flush=True)
        raise
