"""Offsets and enum values of the running kernel, from its BTF, through libbpf.

Only the loading child uses this (it keeps libbpf out of the tracer). Layout facts come from the
kernel's ``include/uapi/linux/btf.h``: ``struct btf_type`` is 12 bytes (name_off, info, size/type)
followed by kind-specific records.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rsttrace.errors import DependencyError, KernelError

VMLINUX = "/sys/kernel/btf/vmlinux"

KIND_STRUCT, KIND_UNION, KIND_ENUM = 4, 5, 6
KIND_TYPEDEF, KIND_VOLATILE, KIND_CONST, KIND_RESTRICT, KIND_TYPE_TAG = 8, 9, 10, 11, 18
KIND_FUNC, KIND_FUNC_PROTO = 12, 13
_MODIFIERS = (KIND_TYPEDEF, KIND_VOLATILE, KIND_CONST, KIND_RESTRICT, KIND_TYPE_TAG)


@dataclass(frozen=True)
class Field:
    """Where a member is: `offset` and `size` in bytes."""

    offset: int
    size: int


@dataclass(frozen=True)
class _Member:
    name: str
    type_id: int
    bit_offset: int
    bitfield: bool


class Btf:
    """One kernel's type information.

    Args:
        path: a raw BTF file; the running kernel's by default.

    Raises:
        DependencyError: libbpf (``libbpf.so.1`` or ``libbpf.so.0``) is not installed.
        KernelError: the kernel has no BTF, or libbpf cannot read it.
    """

    def __init__(self, path: str = VMLINUX) -> None:
        lib = load_libbpf()
        lib.btf__parse_raw.restype = ctypes.c_void_p
        lib.btf__parse_raw.argtypes = [ctypes.c_char_p]
        lib.btf__find_by_name_kind.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32]
        lib.btf__type_by_id.restype = ctypes.c_void_p
        lib.btf__type_by_id.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
        lib.btf__name_by_offset.restype = ctypes.c_char_p
        lib.btf__name_by_offset.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
        lib.btf__resolve_size.restype = ctypes.c_int64
        lib.btf__resolve_size.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
        lib.btf__free.argtypes = [ctypes.c_void_p]
        lib.libbpf_set_print(None)  # its complaints come back as our errors
        self._lib = lib
        self._btf = lib.btf__parse_raw(path.encode())
        # libbpf 0.x returns -errno as the pointer itself, 1.x NULL with errno set.
        code = 0
        if self._btf and self._btf > 2**64 - 4096:
            code, self._btf = 2**64 - self._btf, None
        if not self._btf:
            raise KernelError(
                f"no usable BTF at {path}: {_strerror(code or ctypes.get_errno())}",
                hint=(
                    "use a libbpf as new as this kernel, whose BTF it must know, "
                    if Path(path).exists()
                    else "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, "
                )
                + "or install its headers",
            )

    def close(self) -> None:
        """Give the memory back."""
        if self._btf:
            self._lib.btf__free(self._btf)
            self._btf = None

    def field(self, struct_name: str, path: str) -> Field | None:
        """Find a member by its C path (``__sk_common.skc_net.net``), anonymous members included.

        Returns None where this kernel has no such struct or member, or it is a bit-field.
        """
        type_id = self._lib.btf__find_by_name_kind(self._btf, struct_name.encode(), KIND_STRUCT)
        if type_id <= 0:
            return None
        offset = 0
        for step in path.split("."):
            found = self._member(type_id, step)
            if found is None:
                return None
            type_id, bits = found
            offset += bits
        size = self._lib.btf__resolve_size(self._btf, type_id)
        return Field(offset // 8, size) if size > 0 and offset % 8 == 0 else None

    def enum(self, name: str) -> dict[str, int]:
        """An enum's enumerators, by name; empty where the kernel has no such enum."""
        type_id = self._lib.btf__find_by_name_kind(self._btf, name.encode(), KIND_ENUM)
        if type_id <= 0:
            return {}
        address, _, vlen, _ = self._type(type_id)
        raw = ctypes.string_at(address + 12, 8 * vlen)
        return {self._name(off): value for off, value in struct.iter_unpack("<Ii", raw)}

    def parameters(self, name: str) -> list[str] | None:
        """Argument names of a kernel function, or of a raw tracepoint's ``btf_trace_<event>``.

        A tracepoint's prototype has no names: its arguments come as empty strings. None where the
        kernel has no such function.
        """
        kind = KIND_TYPEDEF if name.startswith("btf_trace_") else KIND_FUNC
        type_id = self._lib.btf__find_by_name_kind(self._btf, name.encode(), kind)
        if type_id <= 0:
            return None
        for _ in range(4):  # function -> prototype; typedef -> pointer -> prototype
            address, kind, vlen, target = self._type(type_id)
            if kind == KIND_FUNC_PROTO:
                raw = ctypes.string_at(address + 12, 8 * vlen)
                names = [self._name(offset) for offset, _ in struct.iter_unpack("<II", raw)]
                # The first one of a tracepoint's is the probe's private data.
                return names[1:] if name.startswith("btf_trace_") else names
            type_id = target
        return None

    def number(self, name: str, kind: int) -> int | None:
        """The number of a type of that kind (``KIND_…``); None: there is none."""
        type_id = self._lib.btf__find_by_name_kind(self._btf, name.encode(), kind)
        return int(type_id) if type_id > 0 else None

    def _type(self, type_id: int) -> tuple[int, int, int, int]:
        """(address, kind, vlen, size or type) of a type."""
        address = self._lib.btf__type_by_id(self._btf, type_id)
        _, info, target = struct.unpack("<III", ctypes.string_at(address, 12))
        return address, (info >> 24) & 0x1F, info & 0xFFFF, target

    def _name(self, offset: int) -> str:
        return (self._lib.btf__name_by_offset(self._btf, offset) or b"").decode()

    def _strip(self, type_id: int) -> int:
        while True:
            _, kind, _, target = self._type(type_id)
            if kind not in _MODIFIERS:
                return type_id
            type_id = target

    def _members(self, type_id: int) -> Iterator[_Member]:
        address, kind, vlen, _ = self._type(type_id)
        if kind not in (KIND_STRUCT, KIND_UNION):
            return
        flagged = struct.unpack("<I", ctypes.string_at(address + 4, 4))[0] >> 31
        raw = ctypes.string_at(address + 12, 12 * vlen)
        for name, member_type, offset in struct.iter_unpack("<III", raw):
            bits = offset & 0xFFFFFF if flagged else offset
            yield _Member(self._name(name), member_type, bits, bool(flagged and offset >> 24))

    def _member(self, type_id: int, name: str) -> tuple[int, int] | None:
        """(type id, bit offset) of a member, looked for in anonymous members too."""
        for member in self._members(self._strip(type_id)):
            if member.name == name:
                return None if member.bitfield else (member.type_id, member.bit_offset)
            if not member.name:
                inner = self._member(member.type_id, name)
                if inner is not None:
                    return inner[0], inner[1] + member.bit_offset
        return None


def load_libbpf() -> ctypes.CDLL:
    """libbpf: version 1, or 0.1 and newer, whose functions used here are the same."""
    problems = []
    for name in ("libbpf.so.1", "libbpf.so.0"):
        try:
            return ctypes.CDLL(name, use_errno=True)
        except OSError as error:
            problems.append(str(error))
    raise DependencyError(
        f"libbpf.so.1 cannot be loaded: {problems[0]}",
        hint="install libbpf (Debian, Ubuntu: libbpf1, or libbpf0 on old releases; "
        "Fedora, Rocky: libbpf)",
    )


def _strerror(code: int) -> str:
    import os

    return os.strerror(code) if code else "unknown error"
