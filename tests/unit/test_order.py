from __future__ import annotations

import random

from rsttrace.kernel.order import HELD_NS, TIME, InOrder

US = 1_000
START = 5_000_000_000


def raw(time_ns: int, name: bytes = b"") -> bytes:
    return TIME.pack(time_ns) + name


def times(records: list[bytes]) -> list[int]:
    return [TIME.unpack_from(record)[0] for record in records]


def test_an_older_event_of_the_next_read_comes_first() -> None:
    order = InOrder()
    order.add([raw(START + 50 * US)])
    assert order.take(9, START + 60 * US) == []
    order.add([raw(START + 40 * US)])
    read_ns = START + 50 * US + HELD_NS
    assert times(order.take(9, read_ns)) == [START + 40 * US, START + 50 * US]
    assert order.take(9, read_ns) == []


def test_an_event_is_held_no_longer_than_that() -> None:
    order = InOrder()
    assert order.due_ns() is None
    order.add([raw(START)])
    due_ns = order.due_ns()
    assert due_ns == START + HELD_NS
    assert order.take(9, due_ns - 1) == []
    assert times(order.take(9, due_ns)) == [START]
    assert HELD_NS <= 5_000_000  # whoever watches does not notice


def test_a_younger_event_lets_the_older_ones_go() -> None:
    """Until when the ring was read is not known: a CPU is writing, or there was too much."""
    order = InOrder()
    order.add([raw(START), raw(START + US), raw(START + HELD_NS)])
    assert times(order.take(9, 0)) == [START]
    assert len(order) == 2


def test_nothing_is_held_when_nothing_more_comes() -> None:
    order = InOrder()
    order.add([raw(START + US), raw(START)])
    assert times(order.take(9, None)) == [START, START + US]


def test_so_many_at_most() -> None:
    order = InOrder()
    order.add(raw(START + number) for number in range(5))
    assert times(order.take(2, None)) == [START, START + 1]
    assert times(order.take(9, None)) == [START + 2, START + 3, START + 4]


def test_of_one_time_the_one_read_first() -> None:
    order = InOrder()
    order.add([raw(START, b"z"), raw(START, b"a")])
    assert order.take(9, None) == [raw(START, b"z"), raw(START, b"a")]


def test_what_is_later_than_the_bound_is_not_lost() -> None:
    order = InOrder()
    order.add([raw(START + 3 * HELD_NS)])
    assert len(order.take(9, START + 4 * HELD_NS)) == 1
    order.add([raw(START)])  # its RST had to wait for the socket
    assert times(order.take(9, START + 4 * HELD_NS)) == [START]


def test_whatever_the_reads_the_order_is_that_of_time() -> None:
    """Two CPUs, each event in the ring at most HELD_NS after its time."""
    dice = random.Random(9)
    events = [START + dice.randrange(200 * HELD_NS) for _ in range(2_000)]
    in_ring = sorted((time_ns + dice.randrange(HELD_NS), time_ns) for time_ns in events)
    order, taken, now_ns = InOrder(), [], START
    while in_ring:
        now_ns += dice.randrange(3 * HELD_NS)
        most = dice.randrange(1, 40)
        there = [entry for entry in in_ring if entry[0] <= now_ns]
        order.add(raw(time_ns) for _, time_ns in there[:most])
        del in_ring[: min(most, len(there))]
        taken += times(order.take(dice.randrange(9), now_ns if most >= len(there) else 0))
    taken += times(order.take(len(events), None))
    assert taken == sorted(events)
