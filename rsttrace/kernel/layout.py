"""The event's layout, read from its one definition in ``bpf/event.h``."""

from __future__ import annotations

import ctypes
import functools
import re
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


def event_size() -> int:
    """Bytes of one ``struct rst_event``."""
    return ctypes.sizeof(structures().rst_event)
