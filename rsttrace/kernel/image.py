"""The compiled program as data: maps and instructions, loaded by bpf(2) itself.

What bcc compiles depends on the sources, the options and the kernel alone. Kept (see `cache.py`),
it is loaded again in a fraction of the time, without a compiler. The kernel's verifier looks at it
each time as if it were new.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import struct
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from rsttrace.kernel import syscalls

INSTRUCTION = struct.Struct("=BBhi")
"""struct bpf_insn: code, registers, offset, immediate (include/uapi/linux/bpf.h)."""

LOAD_64, PSEUDO_MAP_FD = 0x18, 1
"""BPF_LD | BPF_IMM | BPF_DW; the source register by which its immediate is a map's descriptor."""

KPROBE, CGROUP_SKB, RAW_TRACEPOINT = 2, 8, 17
"""enum bpf_prog_type."""

LICENSE = b"GPL"
MAP_NAME = PROGRAM_NAME = 15
"""BPF_OBJ_NAME_LEN without the final zero."""


class Program(Protocol):
    """A compiled program, whoever loads it."""

    bcc_version: str

    def load(self, function: str, kind: int) -> int:
        """Load a function as a program of this kind; returns its descriptor.

        Raises:
            OSError: the kernel refuses; the message says why.
        """

    def code(self, function: str) -> bytes:
        """A function's instructions, with the maps' descriptors in them."""

    def map(self, name: str) -> int:
        """A map's descriptor."""


@dataclass(frozen=True)
class Map:
    """What a map is made from (union bpf_attr, BPF_MAP_CREATE)."""

    kind: int
    key_size: int
    value_size: int
    entries: int
    flags: int


@dataclass(frozen=True)
class Code:
    """A function's instructions, and at which byte of them a map's descriptor belongs."""

    instructions: bytes
    maps: dict[int, str]


@dataclass(frozen=True)
class Image:
    """A compiled program that no file descriptor is part of."""

    bcc_version: str
    maps: dict[str, Map]
    functions: dict[str, Code] = field(default_factory=dict)

    def dumps(self) -> str:
        """As text, for `loads`."""
        return json.dumps(
            {
                "bcc_version": self.bcc_version,
                "maps": {name: asdict(one) for name, one in self.maps.items()},
                "functions": {
                    name: [base64.b64encode(code.instructions).decode(), list(code.maps.items())]
                    for name, code in self.functions.items()
                },
            }
        )


def loads(text: str) -> Image:
    """The image that `Image.dumps` wrote.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    found = json.loads(text)
    return Image(
        bcc_version=str(found["bcc_version"]),
        maps={name: Map(**one) for name, one in found["maps"].items()},
        functions={
            name: Code(base64.b64decode(code, validate=True), dict(places))
            for name, (code, places) in found["functions"].items()
        },
    )


def extract(functions: Iterable[str], program: Any, bcc: Any, version: str) -> Image:
    """What bcc has compiled, from its own ``BPF`` object."""
    module, lib = program.module, bcc.lib
    lib.bpf_table_name.restype = ctypes.c_char_p
    lib.bpf_table_name.argtypes = [ctypes.c_void_p, ctypes.c_ulonglong]
    maps: dict[str, Map] = {}
    names: dict[int, str] = {}
    for number in range(lib.bpf_num_tables(ctypes.c_void_p(module))):
        name = lib.bpf_table_name(module, number)
        descriptor = lib.bpf_table_fd(module, name)
        names[descriptor] = name.decode()
        maps[name.decode()] = made_like(descriptor)
    codes = {}
    for function in sorted(functions):
        raw = bytearray(program.dump_func(function.encode()))
        places = {
            at: names[immediate]
            for at, (code, registers, _, immediate) in zip(
                range(0, len(raw), INSTRUCTION.size), INSTRUCTION.iter_unpack(raw)
            )
            if code == LOAD_64 and registers >> 4 == PSEUDO_MAP_FD
        }
        for at in places:
            struct.pack_into("=i", raw, at + 4, 0)
        codes[function] = Code(bytes(raw), places)
    return Image(version, maps, codes)


def made_like(descriptor: int) -> Map:
    """What an existing map was made from (BPF_OBJ_GET_INFO_BY_FD)."""
    info = ctypes.create_string_buffer(80)  # struct bpf_map_info, as far as it is needed
    attributes = struct.pack("=IIQ", descriptor, len(info), ctypes.addressof(info))
    syscalls.bpf(syscalls.BPF_OBJ_GET_INFO_BY_FD, attributes)
    kind, _, key_size, value_size, entries, flags = struct.unpack_from("=6I", info)
    return Map(kind, key_size, value_size, entries, flags)


class Loaded:
    """An image in the kernel: its maps are made at once, its functions loaded when asked for.

    Raises:
        OSError: the kernel refuses a map.
    """

    def __init__(self, image: Image) -> None:
        self.bcc_version = image.bcc_version
        self._image = image
        self._maps: dict[str, int] = {}
        try:
            for name, one in image.maps.items():
                self._maps[name] = _create(name, one)
        except OSError:
            self.close()
            raise

    def map(self, name: str) -> int:
        """A map's descriptor."""
        return self._maps[name]

    def load(self, function: str, kind: int) -> int:
        """Load a function as a program of this kind; returns its descriptor.

        Raises:
            OSError: the kernel refuses.
        """
        raw = self.code(function)
        instructions = ctypes.create_string_buffer(raw, len(raw))
        license_text = ctypes.create_string_buffer(LICENSE)
        # union bpf_attr, the member of BPF_PROG_LOAD up to prog_name: prog_type, insn_cnt, insns,
        # license, log_level, log_size, log_buf, kern_version, prog_flags, prog_name
        attributes = struct.pack(
            "=IIQQIIQII16s",
            kind,
            len(raw) // INSTRUCTION.size,
            ctypes.addressof(instructions),
            ctypes.addressof(license_text),
            0,
            0,
            0,
            0,
            0,
            function[:PROGRAM_NAME].encode(),
        )
        return syscalls.bpf(syscalls.BPF_PROG_LOAD, attributes)

    def code(self, function: str) -> bytes:
        """A function's instructions, with the maps' descriptors in them."""
        code = self._image.functions[function]
        raw = bytearray(code.instructions)
        for at, name in code.maps.items():
            struct.pack_into("=i", raw, at + 4, self._maps[name])
        return bytes(raw)

    def close(self) -> None:
        """Let the maps go; what is loaded keeps its own."""
        while self._maps:
            os.close(self._maps.popitem()[1])


def _create(name: str, one: Map) -> int:
    # map_type, key_size, value_size, max_entries, map_flags, inner_map_fd, numa_node, map_name
    attributes = struct.pack(
        "=7I16s",
        one.kind,
        one.key_size,
        one.value_size,
        one.entries,
        one.flags,
        0,
        0,
        name[:MAP_NAME].encode(),
    )
    return syscalls.bpf(syscalls.BPF_MAP_CREATE, attributes)


def update(descriptor: int, key: bytes, value: bytes) -> None:
    """Write an element of a map.

    Raises:
        OSError: the kernel refuses.
    """
    raw_key = ctypes.create_string_buffer(key, len(key))
    raw_value = ctypes.create_string_buffer(value, len(value))
    # map_fd, padding, key, value, flags (BPF_ANY)
    attributes = struct.pack(
        "=IIQQQ", descriptor, 0, ctypes.addressof(raw_key), ctypes.addressof(raw_value), 0
    )
    syscalls.bpf(syscalls.BPF_MAP_UPDATE_ELEM, attributes)


class Compiled:
    """A program that bcc has just compiled, loaded by bcc itself, whose messages are better."""

    def __init__(self, program: Any, bcc: Any, version: str) -> None:
        self.bcc_version = version
        self._program = program
        self._bcc = bcc

    def map(self, name: str) -> int:
        """A map's descriptor."""
        return int(self._program[name].map_fd)

    def load(self, function: str, kind: int) -> int:
        """Load a function as a program of this kind; returns its descriptor.

        Raises:
            OSError: the kernel refuses.
        """
        try:
            loaded = self._program.load_func(function, kind)
        except Exception as error:  # bcc raises nothing finer
            raise OSError(str(error)) from None
        self._program.funcs.clear()  # one hooked twice is loaded twice: looked() in bpf/events.c
        return int(loaded.fd)

    def code(self, function: str) -> bytes:
        """A function's instructions, with the maps' descriptors in them."""
        return bytes(self._program.dump_func(function.encode()))

    def image(self, functions: Iterable[str]) -> Image:
        """It as data."""
        return extract(functions, self._program, self._bcc, self.bcc_version)
