"""Fingerprints: which known kind of device makes resets that look like this one.

A fingerprint names a device; it never makes the verdict. They come from TOML files:
``fingerprints.toml`` beside this module, those of the administrator in `DIRECTORY`, and those of
the command line. docs/fingerprints.md describes the format, and each that is built in.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Optional, Union

from rsttrace import home
from rsttrace.errors import ConfigError, RsttraceError, UsageError
from rsttrace.judge.facts import MISSED_IDS, once, reference
from rsttrace.judge.formula import Formula, FormulaError, parse
from rsttrace.model import Half, Packet, Reset, Scope, Seen, hops, initial_ttl

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from importlib.abc import Traversable

BUILT_IN = home.resource("rsttrace/judge/fingerprints.toml")
"""The fingerprints that come with the program."""

DIRECTORY = Path("/etc/rsttrace/fingerprints.d")
"""Where the administrator's own are: every ``*.toml``, in the order of their names."""

MAX_BYTES = 1 << 20
"""Size of a file; more is not a list of fingerprints."""

MAX_EARLIER = 3
"""So many earlier RSTs of the flow have names in formulas: ``seq1`` is the newest one's."""

UINT32 = 1 << 32
NS = 1_000_000_000

_KEY = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_OURS_PLUS = re.compile(r"ours\+([1-9][0-9]{0,2})")
_FLAGS = re.compile(r"[FSRPAUEW]+")
_TEXTS = {"device": 100, "text": 500, "source": 500}
_BASIS = ("source", "capture", "report")

Number = Union[int, float]
Points = Optional[int]
"""What a condition that holds says, in bits; None: it does not hold, or that is not known."""


# ---- what is known of the packets around the RST ----


def _ours(reset: Reset) -> tuple[Seen, ...]:
    ours = reset.baseline.ours
    return ours.recent if ours is not None else ()


def _theirs(reset: Reset) -> tuple[Seen, ...]:
    """The peer's own packets in this flow; never an earlier RST, which may be forged too."""
    theirs = _their_half(reset)
    if theirs is None:
        return ()
    return tuple(seen for seen in theirs.recent if "R" not in seen.flags)


def _their_half(reset: Reset) -> Half | None:
    return reset.baseline.theirs if reset.baseline.scope is Scope.FLOW else None


def _trigger(reset: Reset) -> Packet | Seen | None:
    if reset.trigger is not None:
        return reset.trigger
    ours = _ours(reset)
    return ours[0] if ours else None


def _end(packet: Packet | Seen) -> int:
    """The sequence number behind a packet (SYN and FIN count as one: RFC 9293 §3.4)."""
    taken = packet.payload_len + ("S" in packet.flags) + ("F" in packet.flags)
    return (packet.seq + taken) % UINT32


@once
def _times(reset: Reset) -> list[int]:
    """When the flow's packets before the RST were seen, newest first, in ns."""
    times = {seen.time_ns for seen in (*_ours(reset), *_theirs(reset))}
    return sorted((time for time in times if time <= reset.time_ns), reverse=True)


def _quiet_s(reset: Reset) -> float | None:
    times = _times(reset)
    return (reset.time_ns - times[0]) / NS if times else None


def _idle_s(reset: Reset) -> float | None:
    """How long the flow had been silent when we sent the packet that the RST answers."""
    times, ours = _times(reset), _ours(reset)
    if len(times) < 2 or not ours or ours[0].time_ns != times[0]:
        return None
    return (times[0] - times[1]) / NS


# ---- words: relations to other packets ----


def _id_of_ours(reset: Reset, plus: int) -> bool:
    """Whether the RST's IP ID is one of our packets' plus a number (0 and 1 mean nothing)."""
    ip_id = reset.rst.ip_id
    if ip_id is None or ip_id <= 1:
        return False
    return any(
        (ip_id - plus - seen.ip_id) % 0x10000 < seen.segments for seen in _ours(reset) if seen.ip_id
    )


def _id_continues(reset: Reset) -> bool:
    """Whether it is the peer's next IP ID: its own packet's, but for the flags."""
    ip_id = reset.rst.ip_id
    last = next((seen for seen in _theirs(reset) if "S" not in seen.flags and seen.ip_id), None)
    if ip_id is None or last is None or last.ip_id is None:
        return False
    return 1 <= (ip_id - last.ip_id) % 0x10000 <= last.segments + MISSED_IDS


def _id_random(reset: Reset) -> bool:
    """No counter that we know of made it: not 0, not ours, not the peer's, not its own last."""
    ip_id = reset.rst.ip_id
    if not ip_id or not (_ours(reset) or _theirs(reset)):
        return False
    own = any((ip_id - (seen.ip_id or 0)) % 0x10000 in (0, 1, 0x100) for seen in reset.earlier)
    return not (own or _id_of_ours(reset, 0) or _id_of_ours(reset, 1) or _id_continues(reset))


def _df_lost(reset: Reset) -> bool:
    theirs = reset.baseline.theirs
    return reset.rst.df is False and theirs is not None and theirs.df_always


def _window_in(reset: Reset, packets: Iterable[Packet | Seen]) -> bool:
    return bool(reset.rst.window) and any(p.window == reset.rst.window for p in packets)


def _window_trigger(reset: Reset) -> bool:
    trigger = _trigger(reset)
    return trigger is not None and _window_in(reset, [trigger])


def _peer_ttl(reset: Reset) -> int | None:
    """The TTL that stands for the peer."""
    known = reference(reset)
    return None if known is None else known.ttl


def _hops_known(reset: Reset) -> int | None:
    ttl = _peer_ttl(reset)
    return None if ttl is None else hops(ttl)


def _seq_answers(reset: Reset) -> bool:
    return any("A" in seen.flags and seen.ack == reset.rst.seq for seen in _ours(reset))


def _ack_answers(reset: Reset) -> bool:
    return any(_end(seen) == reset.rst.ack for seen in _ours(reset))


def _timestamps(reset: Reset) -> bool:
    return "TS val" in reset.rst.options


def _timestamps_lost(reset: Reset) -> bool:
    theirs = _their_half(reset)
    return theirs is not None and theirs.timestamps and not _timestamps(reset)


# ---- fields ----


@dataclass(frozen=True)
class Word:
    """A relation that a field may have: what it means, and how much it says, in bits."""

    meaning: str
    points: int
    holds: Callable[[Reset], bool]


@dataclass(frozen=True)
class Field:
    """A field of the RST that a pattern may speak of.

    `kind` is the TOML type of its values, `value` reads it (None: unknown, then nothing matches).
    `points` is how much an exact value says, in bits: roughly how rarely another reset has it by
    chance; `common` are values that most resets have, which say little.
    """

    kind: type
    meaning: str
    value: Callable[[Reset], Any]
    points: int
    high: int = 0
    common: Mapping[Any, int] = field(default_factory=dict)
    words: Mapping[str, Word] = field(default_factory=dict)


FIELDS: dict[str, Field] = {
    "family": Field(int, "IP version", lambda r: r.family, 0, 6),
    "ttl": Field(
        int,
        "TTL (hop limit) as received",
        lambda r: r.rst.ttl,
        6,
        255,
        words={
            "peer": Word(
                "that of the peer's SYN or SYN-ACK, else of its newest packet",
                1,
                lambda r: r.rst.ttl == _peer_ttl(r),
            )
        },
    ),
    "initial_ttl": Field(
        int,
        "TTL that it most likely started with: 32, 64, 128 or 255",
        lambda r: initial_ttl(r.rst.ttl),
        2,
        255,
        {64: 1},
    ),
    "hops": Field(
        int,
        "routers passed: `initial_ttl` minus `ttl`",
        lambda r: hops(r.rst.ttl),
        3,
        255,
        words={
            "peer": Word("as many as the peer's", 1, lambda r: hops(r.rst.ttl) == _hops_known(r)),
            "other": Word(
                "another number than the peer's",
                1,
                lambda r: _hops_known(r) not in (None, hops(r.rst.ttl)),
            ),
        },
    ),
    "ip_id": Field(
        int,
        "IPv4 identification",
        lambda r: r.rst.ip_id,
        16,
        0xFFFF,
        {0: 1},
        {
            "ours": Word("one of our newest packets'", 12, lambda r: _id_of_ours(r, 0)),
            "peer": Word(
                f"the peer's next, or up to {MISSED_IDS} further: what the peer's own packet had",
                4,
                _id_continues,
            ),
            "random": Word(
                "not 0, no packet's of ours or the one after it, not the peer's next, not that of "
                "an earlier RST or its next",
                1,
                _id_random,
            ),
        },
    ),
    "df": Field(
        bool,
        "the don't-fragment bit (IPv4)",
        lambda r: r.rst.df,
        1,
        words={"lost": Word("not set, where all of the peer's packets had it", 2, _df_lost)},
    ),
    "tos": Field(
        int,
        "type of service (IPv6: traffic class), all 8 bits",
        lambda r: r.rst.tos,
        4,
        255,
        {0: 1},
    ),
    "flags": Field(
        str, "TCP flags in tcpdump's letters, `A` for ACK: `R`, `RA`", lambda r: r.rst.flags, 1
    ),
    "seq": Field(
        int,
        "sequence number",
        lambda r: r.rst.seq,
        16,
        UINT32 - 1,
        {0: 1},
        {
            "answers": Word("what a packet of ours acknowledged", 1, _seq_answers),
            "peer": Word(
                "that of a packet of the peer's own",
                4,
                lambda r: any(seen.seq == r.rst.seq for seen in _theirs(r)),
            ),
        },
    ),
    "ack": Field(
        int,
        "acknowledgment number, also where the ACK flag is not set",
        lambda r: r.rst.ack,
        16,
        UINT32 - 1,
        {0: 1},
        {
            "nonzero": Word("anything but 0", 1, lambda r: r.rst.ack != 0),
            "answers": Word("the end of a packet of ours", 1, _ack_answers),
            "peer": Word(
                "that of a packet of the peer's own",
                2,
                lambda r: any("A" in seen.flags and seen.ack == r.rst.ack for seen in _theirs(r)),
            ),
        },
    ),
    "window": Field(
        int,
        "TCP window, not scaled",
        lambda r: r.rst.window,
        8,
        0xFFFF,
        {0: 1},
        {
            "trigger": Word("that of our packet which it answers, not 0", 5, _window_trigger),
            "ours": Word(
                "that of one of our newest packets, not 0", 4, lambda r: _window_in(r, _ours(r))
            ),
            "peer": Word(
                "that of one of the peer's newest packets, not 0",
                2,
                lambda r: _window_in(r, _theirs(r)),
            ),
        },
    ),
    "reserved": Field(
        int,
        "the four reserved bits of the TCP header (RFC 9293 §3.1)",
        lambda r: r.rst.reserved,
        6,
        15,
        {0: 0},
    ),
    "payload_len": Field(
        int, "bytes of TCP payload", lambda r: r.rst.payload_len, 8, 0xFFFF, {0: 0}
    ),
    "options": Field(
        bool, "whether there are TCP options", lambda r: bool(r.rst.options), 2, common={False: 0}
    ),
    "timestamps": Field(
        bool,
        "whether there is a TCP timestamp option (RFC 7323)",
        _timestamps,
        2,
        common={False: 0},
        words={"lost": Word("none, where the peer's packets had it", 2, _timestamps_lost)},
    ),
    "count": Field(
        int,
        "RSTs of this flow and direction so far, this one among them",
        lambda r: 1 + len(r.earlier),
        2,
        1000,
        {1: 0},
    ),
    "quiet_s": Field(
        float,
        "seconds since the flow's last packet either way, when the RST came",
        _quiet_s,
        4,
        1_000_000,
    ),
    "idle_s": Field(
        float,
        "seconds that the flow had been silent when we sent the packet which the RST answers",
        _idle_s,
        4,
        1_000_000,
    ),
}
"""Everything that a pattern may speak of, but for formulas."""

RANGE_POINTS = 2
"""What a range says, in bits, where an exact value would say more."""

EQUATION_POINTS = 14
"""What a formula with an equation says; without one, `RANGE_POINTS`."""

_PACKET_NAMES: dict[str, Callable[[Packet | Seen], int | None]] = {
    "ttl": lambda p: p.ttl,
    "ip_id": lambda p: p.ip_id,
    "seq": lambda p: p.seq,
    "ack": lambda p: p.ack,
    "window": lambda p: p.window,
    "payload_len": lambda p: p.payload_len,
}


def _address(text: str, *, swapped: bool) -> int | None:
    """An address as a number; `swapped`: an IPv4 address's bytes as a little-endian CPU reads."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if swapped:
        return int.from_bytes(address.packed, "little") if address.version == 4 else None
    return int(address)


def _of_packet(
    find: Callable[[Reset], Packet | Seen | None], name: str, read: Callable[[Packet | Seen], Any]
) -> Callable[[Reset], int | None]:
    """How a number of one of the packets around a reset is read."""

    def value(reset: Reset) -> int | None:
        packet = find(reset)
        if packet is None or (name == "ip_id" and reset.family == 6):  # `Seen` has 0 there
            return None
        number: int | None = read(packet)
        return number

    return value


def _earlier(index: int) -> Callable[[Reset], Seen | None]:
    return lambda r: r.earlier[index] if index < len(r.earlier) else None


def _newest_of_peer(reset: Reset) -> Seen | None:
    theirs = _theirs(reset)
    return theirs[0] if theirs else None


def _named() -> dict[str, Callable[[Reset], int | None]]:
    """How each name of a formula is read."""
    found: dict[str, Callable[[Reset], int | None]] = {
        "initial_ttl": lambda r: initial_ttl(r.rst.ttl),
        "hops": lambda r: hops(r.rst.ttl),
        "df": lambda r: None if r.rst.df is None else int(r.rst.df),
        "tos": lambda r: r.rst.tos,
        "reserved": lambda r: r.rst.reserved,
        "src": lambda r: _address(r.rst.src.ip, swapped=False),
        "dst": lambda r: _address(r.rst.dst.ip, swapped=False),
        "src_le": lambda r: _address(r.rst.src.ip, swapped=True),
        "dst_le": lambda r: _address(r.rst.dst.ip, swapped=True),
        "src_port": lambda r: r.rst.src.port,
        "dst_port": lambda r: r.rst.dst.port,
        "count": lambda r: 1 + len(r.earlier),
        "peer_hops": _hops_known,
    }
    around: list[tuple[str, str, Callable[[Reset], Packet | Seen | None]]] = [
        ("", "", lambda r: r.rst),
        ("trigger_", "", _trigger),
        ("peer_", "", _newest_of_peer),
    ]
    around += [("", str(index + 1), _earlier(index)) for index in range(MAX_EARLIER)]
    for prefix, suffix, find in around:
        for name, read in _PACKET_NAMES.items():
            found[f"{prefix}{name}{suffix}"] = _of_packet(find, name, read)
    return found


_NAMED = _named()


def names(reset: Reset, wanted: Iterable[str] = _NAMED) -> dict[str, int | None]:
    """The named integers of formulas; ``None`` where unknown. See docs/fingerprints.md."""
    return {name: _NAMED[name](reset) for name in wanted}


def known_names() -> frozenset[str]:
    """The names that a formula may use."""
    return frozenset(_NAMED)


# ---- patterns ----


@dataclass(frozen=True)
class Exact:
    """The field has this value."""

    value: Number | str

    def points(self, name: str, reset: Reset) -> Points:
        """What it says if it holds."""
        about = FIELDS[name]
        if about.value(reset) != self.value:
            return None
        return about.common.get(self.value, about.points)

    def __str__(self) -> str:
        return str(self.value).lower() if isinstance(self.value, bool) else str(self.value)


@dataclass(frozen=True)
class Range:
    """The field is known and in this range; ``None``: no bound."""

    low: Number | None
    high: Number | None

    def points(self, name: str, reset: Reset) -> Points:
        """What it says if it holds."""
        value = FIELDS[name].value(reset)
        if value is None:
            return None
        if (self.low is not None and value < self.low) or (
            self.high is not None and value > self.high
        ):
            return None
        narrow = self.low is not None and self.high is not None
        return min(FIELDS[name].points, RANGE_POINTS + narrow)

    def __str__(self) -> str:
        if self.high is None:
            return f"{self.low} or more"
        return f"{self.high} or less" if self.low is None else f"{self.low} to {self.high}"


@dataclass(frozen=True)
class Relation:
    """The field stands in this relation to other packets. `plus` is N of ``ours+N``."""

    word: str
    plus: int = 0

    def points(self, name: str, reset: Reset) -> Points:
        """What it says if it holds."""
        word = FIELDS[name].words[self.word]
        if self.plus:
            return word.points if _id_of_ours(reset, self.plus) else None
        return word.points if word.holds(reset) else None

    def __str__(self) -> str:
        return f"{self.word}+{self.plus}" if self.plus else self.word


Condition = Union[Exact, Range, Relation]

Held = tuple[int, Condition]
"""A condition that holds, and what it says, in bits."""


def _best(name: str, conditions: tuple[Condition, ...], reset: Reset) -> Held | None:
    """Of the conditions that hold the one that says most, the first one of several."""
    best: Held | None = None
    for condition in conditions:
        points = condition.points(name, reset)
        if points is not None and (best is None or points > best[0]):
            best = points, condition
    return best


@dataclass(frozen=True)
class Pattern:
    """Fields with the conditions of which one must hold, and formulas that must all hold."""

    fields: tuple[tuple[str, tuple[Condition, ...]], ...]
    formulas: tuple[Formula, ...] = ()

    @cached_property
    def plain_values(self) -> dict[str, tuple[Number | str, ...]]:
        """The fields of which only values are given: quickly compared, and most often decisive."""
        return {
            name: tuple(c.value for c in conditions if isinstance(c, Exact))
            for name, conditions in self.fields
            if all(isinstance(condition, Exact) for condition in conditions)
        }

    @cached_property
    def _by_what_is_left(self) -> list[tuple[str, tuple[Condition, ...]]]:
        """The fields with what is yet to be told when `plain_values` hold first."""
        return sorted(self.fields, key=lambda item: item[0] in self.plain_values)

    def match(self, reset: Reset) -> tuple[int, tuple[str, ...]] | None:
        """How much it says that all of it holds, in bits, and what held; None: not all does."""
        for name, allowed in self.plain_values.items():
            if FIELDS[name].value(reset) not in allowed:
                return None
        held: dict[str, Held] = {}
        for name, conditions in self._by_what_is_left:
            best = _best(name, conditions, reset)
            if best is None:
                return None
            held[name] = best
        total, why = 0, []
        for name, _ in self.fields:
            points, condition = held[name]
            total += points
            why.append(f"{name} {condition}")
        if self.formulas:
            for formula in self.formulas:
                if not formula.holds(names(reset, formula.names)):
                    return None
                total += EQUATION_POINTS if formula.equations else RANGE_POINTS
                why.append(formula.text)
        return total, tuple(why)


@dataclass(frozen=True)
class Fingerprint:
    """A known kind of device.

    `device` completes "probably ..."; `text` is a sentence about it; `source` says where its
    behaviour is from and `basis` how it is known from there: read in its ``source`` code, seen in
    a ``capture`` of it, or told in a ``report``. `file` is the file that defines it. One of
    `patterns` must match.
    """

    key: str
    device: str
    text: str
    source: str
    basis: str
    patterns: tuple[Pattern, ...]
    file: Traversable


class Match(NamedTuple):
    """A fingerprint that a reset matches, how specific that is (bits), and what held."""

    fingerprint: Fingerprint
    specificity: int
    why: tuple[str, ...]


@dataclass(frozen=True)
class Fingerprints:
    """All fingerprints of a run, by key."""

    by_key: Mapping[str, Fingerprint]

    def match(self, reset: Reset) -> list[Match]:
        """Those that a reset matches, the most specific first. Pure; knows no verdict."""
        found = []
        for fingerprint, patterns in self._left(reset):
            tried = [pattern.match(reset) for pattern in patterns]
            matched = [held for held in tried if held is not None]
            if matched:
                found.append(Match(fingerprint, *max(matched, key=lambda held: held[0])))
        return sorted(found, key=lambda match: (-match.specificity, match.fingerprint.key))

    @cached_property
    def _known_left(self) -> dict[tuple[Any, ...], list[tuple[Fingerprint, list[Pattern]]]]:
        return {}

    def _left(self, reset: Reset) -> list[tuple[Fingerprint, list[Pattern]]]:
        """The patterns that a reset may match by its `FEW_VALUED` fields: found out once for each
        of their combinations."""
        values = tuple([read(reset) for read in _FEW_VALUED])
        left = self._known_left.get(values)
        if left is None:
            named = dict(zip(FEW_VALUED, values))
            possible = [
                (fingerprint, [one for one in fingerprint.patterns if _may_match(one, named)])
                for fingerprint in self.by_key.values()
            ]
            left = [(fingerprint, patterns) for fingerprint, patterns in possible if patterns]
            if len(self._known_left) < COMBINATIONS:
                self._known_left[values] = left
        return left


FEW_VALUED = ("family", "flags", "df", "options", "initial_ttl", "tos")
"""Fields that have few values in all resets, and tell most fingerprints apart."""

_FEW_VALUED = tuple(FIELDS[name].value for name in FEW_VALUED)

COMBINATIONS = 1024
"""So many combinations of these are remembered."""


def _may_match(pattern: Pattern, named: Mapping[str, Any]) -> bool:
    """Whether these fields' values are none that a pattern excludes."""
    plain = pattern.plain_values
    return all(value in plain[name] for name, value in named.items() if name in plain)


# ---- reading files ----


def load(paths: Iterable[Path] = (), *, directory: Path = DIRECTORY) -> Fingerprints:
    """The built-in fingerprints, then those of `directory`, then those of `paths`.

    A later one replaces an earlier one with the same key.

    Raises:
        ConfigError: a file of `directory` cannot be used.
        UsageError: one of `paths` cannot be used.
    """
    by_key: dict[str, Fingerprint] = {}
    try:
        own = sorted(path for path in directory.iterdir() if path.suffix == ".toml")
    except (FileNotFoundError, NotADirectoryError):
        own = []
    except OSError as error:
        raise ConfigError(
            f"the fingerprints in {str(directory)!r} cannot be read: {error.strerror}",
            hint="make the directory readable, or remove it",
        ) from None
    for path, kind in [
        (BUILT_IN, ConfigError),
        *((path, ConfigError) for path in own),
        *((path, UsageError) for path in paths),
    ]:
        by_key.update(_Reader(path, kind).read())
    return Fingerprints(by_key)


class _Reader:
    """Reads one file; every problem is an `error` that names the file and the place in it."""

    def __init__(self, path: Traversable, error: type[RsttraceError]) -> None:
        self._path = path
        self._error = error

    def _fail(self, where: str, problem: str) -> NoReturn:
        place = f", {where}" if where else ""
        raise self._error(
            f"fingerprints in {str(self._path)!r}{place}: {_plain(problem)}",
            hint="see docs/fingerprints.md for the format",
        )

    def read(self) -> dict[str, Fingerprint]:
        """The file's fingerprints by key."""
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            self._fail("", f"cannot be read: {getattr(error, 'strerror', None) or error}")
        if len(data) > MAX_BYTES:
            self._fail("", f"larger than {MAX_BYTES >> 20} MiB")
        try:
            tables = tomllib.loads(data.decode())
        except UnicodeDecodeError as error:
            self._fail("", f"not UTF-8 (byte {error.start})")
        except tomllib.TOMLDecodeError as error:
            self._fail("", f"not TOML: {error}")
        except (RecursionError, ValueError) as error:  # nested without end; numbers without end
            self._fail("", f"not usable: {type(error).__name__}")
        return {key: self._fingerprint(key, table) for key, table in tables.items()}

    def _fingerprint(self, key: str, table: object) -> Fingerprint:
        where = f"[{_short(key)}]"
        if not _KEY.fullmatch(key):
            self._fail(where, "a key has small letters, digits and hyphens only, at most 64")
        if not isinstance(table, dict):
            self._fail(where, f"is {_type(table)}, not a table")
        self._known(where, table, [*_TEXTS, "basis", "match"])
        texts = {}
        for name, longest in _TEXTS.items():
            value = table.get(name)
            if value is None:
                self._fail(where, f"{name} is missing")
            if not isinstance(value, str):
                self._fail(where, f"{name} is {_type(value)}, not a string")
            if not value.strip() or len(value) > longest:
                self._fail(where, f"{name} must have 1 to {longest} characters")
            texts[name] = value.strip()
        basis = table.get("basis", "report")
        if basis not in _BASIS:
            self._fail(where, f"basis must be one of {', '.join(_BASIS)}, not {_short(basis)}")
        patterns = table.get("match")
        if not isinstance(patterns, list) or not patterns:
            self._fail(where, f"needs one or more [[{key}.match]] tables")
        made = tuple(
            self._pattern(f"{where} match {number}", pattern)
            for number, pattern in enumerate(patterns, 1)
        )
        return Fingerprint(key, **texts, basis=basis, patterns=made, file=self._path)

    def _known(self, where: str, table: dict[str, Any], known: list[str]) -> None:
        for name in table:
            if name not in known:
                self._fail(where, f"unknown key {_short(name)}; known are: {', '.join(known)}")

    def _pattern(self, where: str, table: object) -> Pattern:
        if not isinstance(table, dict):
            self._fail(where, f"is {_type(table)}, not a table")
        self._known(where, table, [*FIELDS, "formula"])
        if not table:
            self._fail(where, "is empty: it would match every reset")
        fields = tuple(
            (name, self._conditions(f"{where}, {name}", name, value))
            for name, value in table.items()
            if name != "formula"
        )
        return Pattern(fields, self._formulas(f"{where}, formula", table.get("formula", [])))

    def _formulas(self, where: str, value: object) -> tuple[Formula, ...]:
        texts = value if isinstance(value, list) else [value]
        made = []
        for text in texts:
            if not isinstance(text, str):
                self._fail(where, f"{_short(text)} is {_type(text)}, not a string")
            try:
                made.append(parse(text, known_names()))
            except FormulaError as error:
                self._fail(where, f"{_short(text)}: {error}")
        return tuple(made)

    def _conditions(self, where: str, name: str, value: object) -> tuple[Condition, ...]:
        values = value if isinstance(value, list) else [value]
        if not values:
            self._fail(where, "an empty list matches nothing")
        return tuple(self._condition(where, name, item) for item in values)

    def _condition(self, where: str, name: str, value: object) -> Condition:
        about = FIELDS[name]
        if isinstance(value, dict):
            return self._range(where, name, value)
        if isinstance(value, str) and about.kind is not str:
            plus = _OURS_PLUS.fullmatch(value) if name == "ip_id" else None
            if plus:
                return Relation("ours", int(plus[1]))
            if value not in about.words:
                self._fail(where, f"{_short(value)} is not one of {_expected(name)}")
            return Relation(value)
        if about.kind is str and isinstance(value, str):
            if not _FLAGS.fullmatch(value) or "R" not in value or len(set(value)) < len(value):
                self._fail(where, f"{_short(value)} are no TCP flags of a RST, such as R or RA")
            # as `Packet.flags` has them: from the lowest bit up (RFC 9293 §3.1)
            return Exact("".join(sorted(value, key="FSRPAUEW".index)))
        if about.kind is bool and isinstance(value, bool):
            return Exact(value)
        return Exact(self._number(where, name, value))

    def _number(self, where: str, name: str, value: object) -> Number:
        about = FIELDS[name]
        types = (int, float) if about.kind is float else (int,)
        if about.kind in (bool, str) or isinstance(value, bool) or not isinstance(value, types):
            self._fail(where, f"{_short(value)} is {_type(value)}, not {_expected(name)}")
        if not 0 <= value <= about.high:
            self._fail(where, f"{_short(value)} is not between 0 and {about.high}")
        return value

    def _range(self, where: str, name: str, table: dict[str, Any]) -> Range:
        if FIELDS[name].kind in (bool, str):
            self._fail(where, f"is a table, not {_expected(name)}")
        self._known(where, table, ["min", "max"])
        if not table:
            self._fail(where, "a range needs min, max or both")
        bounds = {key: self._number(f"{where}.{key}", name, value) for key, value in table.items()}
        low, high = bounds.get("min"), bounds.get("max")
        if low is not None and high is not None and low > high:
            self._fail(where, f"min {low} is more than max {high}")
        return Range(low, high)


def _expected(name: str) -> str:
    about = FIELDS[name]
    kinds = {int: "an integer", float: "a number", bool: "true or false", str: "a string of flags"}
    parts = [kinds[about.kind]]
    if about.kind in (int, float):
        parts.append("a range {min, max}")
    parts += [f'"{word}"' for word in about.words]
    if name == "ip_id":
        parts.append('"ours+N"')
    return ", ".join(parts)


def _type(value: object) -> str:
    kinds = {str: "a string", int: "an integer", float: "a float", bool: "a boolean"}
    return {**kinds, dict: "a table", list: "an array"}.get(type(value), "a date or time")


def _short(value: object) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # thousands of digits; tables in tables without end
        return "this value"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _plain(text: str) -> str:
    """Text of a foreign file, harmless on a terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
