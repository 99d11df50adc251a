"""The event's layout, read from its one definition in ``bpf/event.h``."""

from __future__ import annotations

import ctypes
import functools
import re
import struct
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from rsttrace import home
from rsttrace.errors import RsttraceError
from rsttrace.kernel import config

if TYPE_CHECKING:
    from importlib.abc import Traversable

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_DEFINE = re.compile(r"#define (\w+) (\w+)")
_STRUCT = re.compile(r"^struct (\w+) \{(.*?)^\};", re.DOTALL | re.MULTILINE)
_MEMBER = re.compile(r"(?:struct )?(\w+) (\w+)(?:\[(\w+)\])?;")
_NUMBERS = {
    "__u8": ctypes.c_uint8,
    "__u16": ctypes.c_uint16,
    "__u32": ctypes.c_uint32,
    "__u64": ctypes.c_uint64,
}
_FORMS = {
    ctypes.c_uint8: "B",
    ctypes.c_uint16: "H",
    ctypes.c_uint32: "I",
    ctypes.c_uint64: "Q",
}


@functools.lru_cache(maxsize=1)
def bpf_directory() -> Traversable:
    """Where the BPF sources are: inside the installed package, or beside it in a checkout.

    A `Path`, unless rsttrace runs from a zip file.

    Raises:
        RsttraceError: neither has them (a damaged installation).
    """
    candidates = [home.resource(name) for name in ("rsttrace/bpf/", "bpf/")]
    for candidate in candidates:
        if (candidate / "event.h").is_file():
            return candidate
    raise RsttraceError(
        f"the BPF sources are missing: no event.h in {' or '.join(map(str, candidates))}",
        hint="reinstall rsttrace",
    )


class Raw(ctypes.Structure):
    """A structure of ``event.h``, in the machine's own byte order and alignment."""


@functools.lru_cache(maxsize=1)
def structures() -> Any:
    """The structures of ``event.h`` by name, made from its text.

    ``structures().rst_event.from_buffer_copy(data)`` reads one event. The file keeps to what this
    understands: ``struct`` definitions of fixed-width numbers, of structures defined before, and of
    arrays of these.
    """
    text = config.defines(config.constants()) + (bpf_directory() / "event.h").read_text()
    text = _COMMENT.sub("", text)
    sizes = {name: int(value, 0) for name, value in _DEFINE.findall(text)}
    known: dict[str, Any] = dict(_NUMBERS)
    for name, body in _STRUCT.findall(text):
        members = []
        for kind, member, size in _MEMBER.findall(body):
            of = known[kind]
            members.append((member, of * (sizes.get(size) or int(size)) if size else of))
        known[name] = type(name, (Raw,), {"_fields_": members})
    return SimpleNamespace(**{name: of for name, of in known.items() if name not in _NUMBERS})


def unpacker(name: str, *members: str) -> struct.Struct:
    """Reads these members of a structure in one go: numbers, and arrays of bytes as such.

    An attribute of a ctypes structure costs as much as all of them by this. They are given in the
    order in which the structure has them, which need not be without gaps.

    Raises:
        ValueError: they are in another order.
    """
    of = getattr(structures(), name)
    types = dict(of._fields_)
    form, end = "=", 0
    for member in members:
        place = getattr(of, member)
        if place.offset < end:
            raise ValueError(f"struct {name}: {member} comes earlier")
        form += f"{place.offset - end}x" if place.offset > end else ""
        form += _FORMS.get(types[member]) or f"{place.size}s"
        end = place.offset + place.size
    return struct.Struct(form)


def event_size() -> int:
    """Bytes of one ``struct rst_event``."""
    return ctypes.sizeof(structures().rst_event)
