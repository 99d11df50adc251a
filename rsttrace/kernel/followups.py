"""Joins events with the reasons that the kernel tells only after the packet has left."""

from __future__ import annotations

from collections.abc import Iterable
from ctypes import sizeof

from rsttrace.kernel import layout

WITHIN_S = 0.2
"""So long an event waits for its reason, which is some microseconds behind it in the ring buffer:
the rest is for a task that is preempted between the two (tcp_send_active_reset())."""


class FollowUps:
    """Events that wait for a ``struct rst_reason``; each comes out once, with it or without.

    It does not always come: the tracepoint that tells it may have been attached just after the
    packet left, or have said it so long before that it is forgotten (`await_reason()` in
    bpf/packets.c).
    """

    def __init__(self) -> None:
        found = layout.structures()
        event, reason = found.rst_event, found.rst_reason
        self._identity = slice(0, event.skb.offset + 8)  # ts and skb: the same in both
        self._flag: int = event.reason_follows.offset
        self._to: int = event.reason.offset
        self._from = slice(reason.reason.offset, reason.reason.offset + 4)
        self._reason_size = sizeof(reason)
        self._waiting: dict[bytes, tuple[bytes, float]] = {}  # the oldest first

    def __len__(self) -> int:
        """How many events wait."""
        return len(self._waiting)

    def join(self, records: Iterable[bytes], now_s: float) -> list[bytes]:
        """The events that are complete now, or that have waited long enough.

        `records` are what the ring buffer held, in its order; `now_s` is any steady clock's time.
        """
        ready = []
        for record in records:
            identity = record[self._identity]
            waiting = self._waiting.pop(identity, None)
            if len(record) != self._reason_size:
                if waiting is not None:
                    ready.append(waiting[0])
                if record[self._flag]:
                    self._waiting[identity] = (record, now_s + WITHIN_S)
                else:
                    ready.append(record)
            elif waiting is not None:
                event = waiting[0]
                ready.append(event[: self._to] + record[self._from] + event[self._to + 4 :])
        while self._waiting and next(iter(self._waiting.values()))[1] <= now_s:
            ready.append(self._waiting.pop(next(iter(self._waiting)))[0])
        return ready

    def rest(self) -> list[bytes]:
        """The events that still wait: nothing follows any more."""
        rest = [event for event, _ in self._waiting.values()]
        self._waiting.clear()
        return rest
