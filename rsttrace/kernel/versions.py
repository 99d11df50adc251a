"""Which bcc, LLVM, libbpf and plan would be used here. Run as a program: it prints a JSON object.

A program of its own: LLVM is never mapped into ours, and a broken library ends nothing else.
"""

from __future__ import annotations

import ctypes
import json
import re
from pathlib import Path

from rsttrace.errors import RsttraceError
from rsttrace.kernel import btf, kprobe
from rsttrace.kernel.bcc import import_bcc
from rsttrace.kernel.hooks import Plan


def mapped(name: str) -> Path | None:
    """The file of a shared library that this process has mapped, by how its name begins."""
    for line in Path("/proc/self/maps").read_text(errors="surrogateescape").splitlines():
        path = Path(line.partition("/")[1] + line.partition("/")[2])
        if path.name.startswith(name):
            return path
    return None


def llvm() -> str | None:
    """LLVM's version, once bcc is loaded; `None` if it is linked into bcc's own library.

    LLVMGetVersion() is there from LLVM 16 on (llvm-c/Core.h); before, the file's name tells.
    """
    path = mapped("libLLVM")
    if path is None:
        return None
    library = ctypes.CDLL(str(path))
    if hasattr(library, "LLVMGetVersion"):
        numbers = [ctypes.c_uint() for _ in range(3)]
        library.LLVMGetVersion(*(ctypes.byref(number) for number in numbers))
        return ".".join(str(number.value) for number in numbers)
    found = re.search(r"\d+(?:\.\d+)*", path.name)
    return found[0] if found else None


def libbpf() -> str | None:
    """libbpf's version; `None` if there is none.

    libbpf_version_string() is there from 0.6 on (its libbpf.h); before, the file's name tells.
    """
    try:
        library = btf.load_libbpf()
    except RsttraceError:
        return None
    if hasattr(library, "libbpf_version_string"):
        library.libbpf_version_string.restype = ctypes.c_char_p
        return str(library.libbpf_version_string().decode()).lstrip("v")
    path = mapped("libbpf.so")
    return path.resolve().name.partition(".so.")[2] if path else None


def versions() -> dict[str, str | None]:
    """The version of each (`None`: it is missing, or cannot be told), and the plan of ``auto``."""
    try:
        bcc = str(getattr(import_bcc(), "__version__", "unknown"))
    except RsttraceError:
        bcc = None
    plan = Plan.KPROBES if kprobe.available() else Plan.TRACEPOINTS
    return {
        "bcc": bcc,
        "llvm": llvm() if bcc else None,
        "libbpf": libbpf(),
        "plan": plan.value,
    }


if __name__ == "__main__":
    print(json.dumps(versions()))
