"""Random connections of both ends with random accidents: nobody is accused of what it sent."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from rsttrace.compare.files import compare_files
from rsttrace.model import Fate, Point
from tests.unit.test_compare import renumbered
from tests.unit.twopoints import CLIENT, MS, SECOND, SERVER, Talk, World

ACCIDENTS = ("none", "twice", "ends-early", "begins-late", "one-way", "syns-only", "renumbered")

Forged = set[tuple[int, int]]
"""Point and time of each forged RST, by that point's clock."""


def port_of(world: World, data: bytes) -> int:
    """The source port."""
    at = 20 if world.family == 4 else 40
    return int.from_bytes(data[at : at + 2], "big")


def is_syn(world: World, data: bytes) -> bool:
    return bool(data[(20 if world.family == 4 else 40) + 13] & 2)


def world_of(chance: random.Random) -> World:
    return World(
        family=chance.choice([4, 6]),
        hops=chance.choice([1, 3, 6, 11]),
        delay_ns=chance.choice([MS // 20, MS, 5 * MS, 80 * MS]),
        offset_ns=chance.choice([0, 3 * SECOND, -7200 * SECOND, 30 * 86_400 * SECOND]),
        ppm=chance.choice([0, 0, 30, -80]),
        nat=chance.random() < 0.4,
        service=chance.random() < 0.4,
    )


def talk_of(chance: random.Random, world: World, port: int, forged: Forged) -> None:
    """A connection: its handshake, some data, some of it lost or past NAT, and its end."""
    numbers = chance.getrandbits(32), chance.getrandbits(32)
    talk = Talk(world, port, isn=numbers, ids=(chance.randrange(65000), chance.randrange(65000)))
    world.stamp = chance.getrandbits(31)
    for side, flags in ((CLIENT, "S"), (SERVER, "SA"), (CLIENT, "A")):
        if flags == "S" and chance.random() < 0.2:
            talk.send(CLIENT, "S", lost=True)
            talk.numbers[CLIENT] -= 1
            talk.wait(1000 * MS)
        talk.send(side, flags)
        talk.wait(200 * MS)
    for _ in range(chance.randint(0, 6)):
        side = chance.choice([CLIENT, SERVER])
        data = bytes(chance.randint(1, 50))
        if chance.random() < 0.1 and (world.service if side else world.nat):
            talk.send(side, "PA", data, escaped=True)
            talk.wait(200 * MS)
            talk.send(1 - side, "R", window=0, ip_id=0, view=side)
        else:
            talk.send(side, "PA", data, lost=chance.random() < 0.05)
        talk.wait(chance.choice([MS, 200 * MS]))
    side = chance.choice([CLIENT, SERVER])
    if chance.random() < 0.4:
        if chance.random() < 0.5:
            talk.send(side, "PA", b"GET /x", lost=True)
        talk.forge(side, hops=chance.randint(0, world.hops - 1), ip_id=chance.getrandbits(16))
        forged.add((side, world.seen[side][-1][0]))
        talk.wait(300 * MS)
    else:
        talk.honest(side, chance.choice(["R", "RA"]))
    talk.wait(500 * MS)


def befall(chance: random.Random, world: World, accident: str) -> None:
    """What is wrong with one of the captures."""
    rows = world.seen[chance.choice([0, 1])]
    rows.sort(key=lambda row: row[0])
    if accident == "twice":
        rows.extend([(time_ns + 3000, data) for time_ns, data in rows])
    elif accident == "ends-early":
        del rows[int(len(rows) * chance.uniform(0.4, 0.95)) :]
    elif accident == "begins-late":
        del rows[: int(len(rows) * chance.uniform(0.05, 0.6))]
    elif accident == "one-way":
        server = chance.choice([True, False])
        rows[:] = [row for row in rows if (port_of(world, row[1]) in (80, 443)) == server]
    elif accident == "syns-only":
        rows[:] = [row for row in rows if is_syn(world, row[1])]
    elif accident == "renumbered":
        renumbered(world, by=(chance.getrandbits(31), chance.getrandbits(31)))


@pytest.mark.parametrize("accident", ACCIDENTS)
@pytest.mark.parametrize("seed", range(8))
def test_nobody_is_accused_of_its_own_resets(accident: str, seed: int, tmp_path: Path) -> None:
    chance = random.Random(f"{accident} {seed}")
    world, forged = world_of(chance), set[tuple[int, int]]()
    first, reused = chance.randint(40_000, 60_000), chance.random() < 0.3
    for number in range(chance.randint(2, 4)):
        talk_of(chance, world, first if reused else first + number, forged)
    Talk(world, 39_000, isn=(chance.getrandbits(32), chance.getrandbits(32))).open()
    befall(chance, world, accident)
    result = compare_files(dict(zip(Point, world.write(tmp_path))))
    rows = [sorted(seen, key=lambda row: row[0]) for seen in world.seen]
    for (point, frame), other in result.resets.items():
        place = 0 if point is Point.A else 1
        time_ns = rows[place][frame - 1][0]
        made = {(place, time_ns), (place, time_ns - 3000)} & forged
        assert other.fate is not (Fate.LEFT if made else Fate.NEVER_SENT), (point, frame, other)
    if accident in ("none", "twice") and forged:
        found = {other.fate for other in result.resets.values()}
        assert found & {Fate.NEVER_SENT, Fate.LEFT}
