"""A file laid out as a BPF ring buffer map, written as the kernel writes it.

The pages are those of kernel/bpf/ringbuf.c: the consumer's position, the producers' position, the
data, and the data once more (here, a second copy).
"""

from __future__ import annotations

import mmap
import os
import struct

from rsttrace.kernel.ring import BUSY, DISCARD, PAGE


class FileRing:
    """The kernel's side of a ring buffer in a file of memory.

    Attributes:
        descriptor: the file's; closed by `close`.
        size: of the data, in bytes.
    """

    def __init__(self, size: int = PAGE) -> None:
        self.size = size
        self.descriptor = os.memfd_create("ring")
        os.ftruncate(self.descriptor, 2 * PAGE + 2 * size)
        self._map = mmap.mmap(self.descriptor, 0)

    @property
    def consumed(self) -> int:
        """How far the consumer has read."""
        return int(struct.unpack_from("@Q", self._map, 0)[0])

    @consumed.setter
    def consumed(self, position: int) -> None:
        struct.pack_into("@Q", self._map, 0, position)

    def write(self, record: bytes, *, busy: bool = False, discard: bool = False) -> int:
        """Append a record; returns where it begins."""
        (position,) = struct.unpack_from("@Q", self._map, PAGE)
        head = len(record) | BUSY * busy | DISCARD * discard
        self._put(position, struct.pack("@II", head, 0) + record)
        struct.pack_into("@Q", self._map, PAGE, position + (8 + len(record) + 7 & ~7))
        return int(position)

    def commit(self, position: int, length: int) -> None:
        """A record that was busy is whole now."""
        self._put(position, struct.pack("@I", length))

    def _put(self, position: int, data: bytes) -> None:
        for offset, byte in enumerate(data):
            at = 2 * PAGE + (position + offset) % self.size
            self._map[at] = self._map[at + self.size] = byte

    def close(self) -> None:
        """Give the memory back."""
        self._map.close()
        os.close(self.descriptor)
