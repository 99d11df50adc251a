"""Looking something up in a BPF map, by its descriptor."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable

from rsttrace.kernel import syscalls

Lookup = Callable[[int, bytes, int], bytes]
"""As `lookup`."""


def lookup(descriptor: int, key: bytes, size: int) -> bytes:
    """The value of a key, of `size` bytes, which is what the map's values have.

    Before c8644cd0efe7 (5.19) this takes CAP_BPF where kernel.unprivileged_bpf_disabled is not 0.

    Raises:
        OSError: ENOENT: there is no such key; the kernel refuses.
        KernelError: the number of bpf(2) is not known on this machine.
    """
    asked = ctypes.create_string_buffer(key, len(key))
    value = ctypes.create_string_buffer(size)
    # union bpf_attr, the BPF_MAP_*_ELEM member: map_fd, key, value, flags
    attributes = struct.pack(
        "=IxxxxQQQ", descriptor, ctypes.addressof(asked), ctypes.addressof(value), 0
    )
    syscalls.bpf(syscalls.BPF_MAP_LOOKUP_ELEM, attributes)
    return value.raw
