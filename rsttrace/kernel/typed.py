"""Programs that know their arguments' types: raw tracepoints through the kernel's BTF (tp_btf).

Such a program loads members of kernel structures by itself, where another one calls a helper for
each (`MEMBER()` in bpf/read.h). That is most of what a packet costs. The kernel has them since
9e15db66136a (5.5); bcc compiles them, but not every bcc can load them: that is done here.
"""

from __future__ import annotations

import ctypes
import struct

from rsttrace.kernel import syscalls
from rsttrace.kernel.btf import KIND_FUNC, KIND_STRUCT, KIND_TYPEDEF, Btf
from rsttrace.kernel.image import INSTRUCTION, LICENSE, PROGRAM_NAME

BPF_PROG_TYPE_TRACING, BPF_TRACE_RAW_TP = 26, 23  # include/uapi/linux/bpf.h

READABLE_AS = "pt_regs"
"""What memory is read as: a structure of plain numbers, on x86_64 and arm64 longer than what is
read of a packet at once. The numbers it holds may also be read in parts (btf_struct_walk())."""

CALL, PSEUDO_KFUNC_CALL = 0x85, 2
"""An instruction's code, and its source register where it calls a kernel function by number."""

LOG_SIZE = 1 << 20
"""Bytes for what the verifier says; only asked for where it refuses."""


def numbers(btf: Btf | None) -> dict[str, int]:
    """What bpf/read.h is told: whether programs are typed, and how they may read any memory.

    Args:
        btf: the running kernel's; None: they are not typed.
    """
    cast = btf.number("bpf_rdonly_cast", KIND_FUNC) if btf is not None else None
    shape = btf.number(READABLE_AS, KIND_STRUCT) if btf is not None else None
    return {
        "TYPED": int(btf is not None),
        "RDONLY_CAST": cast if cast and shape else 0,
        "READABLE_AS": shape or 0,
    }


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
    code = call_kernel(code, numbers(btf)["RDONLY_CAST"])
    try:
        return _load(code, name, type_id, 0)
    except OSError:
        return _load(code, name, type_id, LOG_SIZE)


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


def _load(code: bytes, name: str, type_id: int, log_size: int) -> int:
    instructions = ctypes.create_string_buffer(code, len(code))
    log = ctypes.create_string_buffer(max(log_size, 1))
    licence = ctypes.create_string_buffer(LICENSE)
    # union bpf_attr, the member of BPF_PROG_LOAD: prog_type, insn_cnt, insns, license, log_level,
    # log_size, log_buf, kern_version, prog_flags, prog_name, prog_ifindex, expected_attach_type,
    # prog_btf_fd, func_info_rec_size, func_info, func_info_cnt, line_info_rec_size, line_info,
    # line_info_cnt, attach_btf_id
    attributes = struct.pack(
        "=IIQQIIQII16sIIIIQIIQII",
        BPF_PROG_TYPE_TRACING, len(code) // INSTRUCTION.size, ctypes.addressof(instructions),
        ctypes.addressof(licence), int(log_size > 0), log_size,
        ctypes.addressof(log) if log_size else 0, 0, 0, name[:PROGRAM_NAME].encode(), 0,
        BPF_TRACE_RAW_TP, 0, 0, 0, 0, 0, 0, 0, type_id,
    )  # fmt: skip
    try:
        return syscalls.bpf(syscalls.BPF_PROG_LOAD, attributes)
    except OSError:
        print(log.value.decode(errors="replace"), flush=True)
        raise
