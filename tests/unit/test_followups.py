from __future__ import annotations

from ctypes import sizeof
from itertools import count

import pytest

from rsttrace.kernel import layout
from rsttrace.kernel.config import NO_REASON
from rsttrace.kernel.followups import WITHIN_S, FollowUps
from rsttrace.model import Kind
from tests.unit import builders as b

numbers = count(1)


def event(*, follows: bool = True, ts: int | None = None, skb: int = 0xFFFF888000000000) -> bytes:
    """A sent RST of its own time, as the ring buffer holds it without --payload."""
    values = {"ts": ts or next(numbers), "skb": skb, "reason_follows": int(follows)}
    raw = bytes(b.event(Kind.SENT_ACTIVE, **values))
    return raw[: layout.event_size() - sizeof(layout.structures().rst_data)]


def reason(of: bytes, number: int) -> bytes:
    """What follows an event."""
    found = layout.structures().rst_event.from_buffer_copy(of.ljust(layout.event_size(), b"\0"))
    return bytes(layout.structures().rst_reason(ts=found.ts, skb=found.skb, reason=number))


def reason_of(raw: bytes) -> int:
    whole = raw.ljust(layout.event_size(), b"\0")
    return int(layout.structures().rst_event.from_buffer_copy(whole).reason)


def test_a_reason_is_put_into_its_event_and_nothing_else_changes() -> None:
    first, second, plain = event(), event(), event(follows=False)
    done = FollowUps().join([first, second, plain, reason(second, 14), reason(first, 11)], 0.0)
    assert done[0] == plain
    assert [reason_of(raw) for raw in done[1:]] == [14, 11]
    for raw, before in zip(done[1:], (second, first)):
        at = raw.index((reason_of(raw)).to_bytes(4, "little"), 24)
        assert raw[:at] + NO_REASON.to_bytes(4, "little") + raw[at + 4 :] == before


def test_a_reason_may_come_with_the_next_read() -> None:
    joining, one = FollowUps(), event()
    assert joining.join([one], 5.0) == []
    assert len(joining) == 1
    (done,) = joining.join([reason(one, 11)], 5.1)
    assert reason_of(done) == 11
    assert len(joining) == 0
    assert joining.rest() == []


def test_without_its_reason_an_event_comes_out_in_time_and_once() -> None:
    joining, one, later = FollowUps(), event(), event()
    assert joining.join([one], 5.0) == []
    assert joining.join([later], 5.1) == []
    assert joining.join([], 5.0 + WITHIN_S) == [one]
    assert joining.join([reason(one, 11)], 5.0 + WITHIN_S) == []  # too late: it has been told
    assert joining.rest() == [later]
    assert (joining.rest(), joining.join([], 9.0)) == ([], [])


def test_a_reason_that_came_in_time_counts_however_late_it_is_read() -> None:
    joining, one = FollowUps(), event()
    assert joining.join([one], 5.0) == []
    (done,) = joining.join([reason(one, 11)], 60.0)
    assert reason_of(done) == 11


@pytest.mark.parametrize("again", [True, False])
def test_none_is_lost_where_two_look_alike(again: bool) -> None:
    joining = FollowUps()
    first, second = event(ts=7), event(ts=7, follows=again)
    assert [*joining.join([first, second], 5.0), *joining.rest()] == [first, second]


def test_a_reason_of_another_packet_in_the_same_memory_is_not_taken() -> None:
    joining, one = FollowUps(), event(ts=7)
    assert joining.join([one, reason(event(ts=8), 11)], 5.0) == []
    assert joining.rest() == [one]
