"""Which rules of a firewall can have rejected a packet with a TCP reset, or taken it. Pure.

Reads what the firewall's own tools list: ``nft -a list ruleset`` (nft(8)) and ``iptables-save -c``.
A rule is excluded only by what is understood of it: its hook, its protocol, addresses and ports,
and a counter that has not moved. Whatever else it asks for may have been so.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Union

from rsttrace.limits import RULES_KEPT

HOOKS = ("prerouting", "input", "forward", "output", "postrouting", "ingress", "egress")
"""Where a base chain is hooked in (nft(8)); iptables' own chains have the same names."""

_ON_NFT = ("iptables", "ip6tables")
"""Tools whose tables nft lists as well."""

_TEXT = 200
"""Characters of a rule's text that are kept."""

Address = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
Span = tuple[int, int]


@dataclass(frozen=True)
class Packet:
    """A packet that was rejected, or refused, as its reset shows it.

    `hook` is where; ``None``: not known. `translated`: this namespace has NAT, and its rules see
    other addresses and ports than the reset has. `loopback`: it went over lo.
    """

    source: str
    sport: int
    target: str
    dport: int
    hook: str | None = None
    translated: bool = False
    loopback: bool | None = None


@dataclass(frozen=True)
class Match:
    """One condition: `what` is ``sport``, ``dport``, ``source``, ``target``, ``loopback``."""

    what: str
    ports: tuple[Span, ...] = ()
    addresses: tuple[Address, ...] = ()
    negated: bool = False

    def excludes(self, packet: Packet) -> bool:
        """Whether a packet cannot have met it."""
        if self.what == "loopback":
            return packet.loopback is not None and packet.loopback == self.negated
        if packet.translated:  # the reset shows other addresses than the rules saw
            return False
        if self.what in ("sport", "dport"):
            port = packet.sport if self.what == "sport" else packet.dport
            found = any(low <= port <= high for low, high in self.ports)
        else:
            ip = ipaddress.ip_address(packet.source if self.what == "source" else packet.target)
            found = any(ip in net for net in self.addresses if net.version == ip.version)
        return found == self.negated


@dataclass(frozen=True)
class Rule:
    """A rule that rejects with a TCP reset, or that takes connections for its own host.

    `tool` lists it (``nft``, ``iptables``…), `family` is nft's word for it, `number` nft's handle
    or iptables' number in its chain. `hooks` are those that lead to its chain; ``None``: not known.
    `packets` is its counter; ``None``: it has none.
    """

    tool: str
    family: str
    table: str
    chain: str
    number: int
    text: str
    matches: tuple[Match, ...] = ()
    hooks: frozenset[str] | None = None
    packets: int | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """What stays of it between two listings."""
        return (self.tool, self.family, self.table, self.chain, str(self.number), self.text)

    def excludes(self, packet: Packet) -> bool:
        """Whether it cannot have rejected a packet."""
        version = 6 if ":" in packet.source else 4
        if self.family in ("ip", "ip6") and (self.family == "ip6") != (version == 6):
            return True
        if self.hooks is not None and (not self.hooks or packet.hook not in {None, *self.hooks}):
            return True
        return any(match.excludes(packet) for match in self.matches)


@dataclass
class Ruleset:
    """The rules of a namespace that reject with a TCP reset.

    `takers` are those that may take a connection for their own host (REDIRECT, DNAT, TPROXY).
    `translates`: something there changes addresses. `tables` are those that were listed, by family
    and name. `whole`: nothing was left out.
    """

    rules: list[Rule] = field(default_factory=list)
    takers: list[Rule] = field(default_factory=list)
    translates: bool = False
    tables: set[tuple[str, str]] = field(default_factory=set)
    whole: bool = True

    def add(self, other: Ruleset) -> None:
        """Take in what another tool lists. iptables shows its own of nft's tables better."""
        both = (*other.rules, *other.takers)
        mine = {(rule.family, rule.table) for rule in both if rule.tool in _ON_NFT}

        def is_left(rule: Rule) -> bool:
            return rule.tool != "nft" or (rule.family, rule.table) not in mine

        self.rules = [*filter(is_left, self.rules), *other.rules]
        self.takers = [*filter(is_left, self.takers), *other.takers]
        self.translates |= other.translates
        self.tables |= other.tables
        self.whole &= other.whole


def candidates(
    now: Ruleset, packet: Packet, before: Ruleset | None, *, after: bool
) -> tuple[list[Rule], bool]:
    """The rules that can have rejected a packet, and whether the one's counter moved meanwhile.

    Args:
        now: the rules.
        packet: what was rejected.
        before: an earlier listing, older than the packet.
        after: `now` was listed after the packet was rejected, so that its counters show it.
    """
    packet = replace(packet, translated=packet.translated or now.translates)
    left = [rule for rule in now.rules if not rule.excludes(packet)]
    if not after:
        return left, False
    known = {rule.key: rule.packets for rule in before.rules} if before is not None else {}
    counted = [rule for rule in left if rule.packets is None or rule.packets > 0]
    # A counter that was set back since may stand lower.
    moved = [
        rule for rule in counted if rule.packets is None or known.get(rule.key) != rule.packets
    ]
    left = moved or counted
    told = len(left) == 1 and left == moved and left[0].packets is not None
    return left, told and left[0].key in known


# ---- nft ----

_TABLE = re.compile(r"table (\w+) (\S+) \{")
_CHAIN = re.compile(r"\tchain (\S+) \{")
_BASE = re.compile(r"\t\ttype (\w+) hook (\w+) ")
_HANDLE = re.compile(r"(.*?) # handle (\d+)$")
_JUMP = re.compile(r"\b(?:jump|goto) ([^\s,}]+)")
_NAMED_MAP = re.compile(r"\bvmap @")
_COUNTER = re.compile(r"\bcounter packets \d+ bytes \d+ ")
_REJECT = re.compile(r"\breject with tcp reset\b")
_TAKES = re.compile(r"\b(?:redirect|dnat|tproxy)\b")
_NAT = re.compile(r"\b(?:dnat|snat|masquerade|redirect|[ds]addr set|[ds]port set)\b")
_VALUE = r"(!= )?(\{[^}]*\}|\S+)"
_PARTS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), what)
    for pattern, what in (
        (rf"(?:ip|ip6) saddr {_VALUE}", "source"),
        (rf"(?:ip|ip6) daddr {_VALUE}", "target"),
        (rf"(?:tcp|th) sport {_VALUE}", "sport"),
        (rf"(?:tcp|th) dport {_VALUE}", "dport"),
        (rf"(?:meta l4proto|ip protocol|ip6 nexthdr) {_VALUE}", "protocol"),
        (r"(?:udp|sctp|dccp|icmp|icmpv6) \w+ ()(\S+)", "other"),
        (rf"(?:iifname|iif|oifname|oif) {_VALUE}", "interface"),
        (rf"meta nfproto {_VALUE}", "any"),
        (rf"ct state {_VALUE}", "any"),
        (r"tcp flags & (\([^)]*\)|\S+) (?:==|!=) (\([^)]*\)|\S+)", "any"),
        (r"tcp flags (!= )?(\S+(?: / \S+)?)", "any"),
        (r"counter packets (\d+) bytes (\d+)", "counter"),
        (r"counter name (\")([^\"]*)\"", "any"),
        (r"(limit) rate (?:over )?(\S+)(?: burst \d+ \w+)?", "any"),
        (r'(log)( prefix "[^"]*"| level \w+| flags [\w ,]+?| group \d+)*(?= |$)', "any"),
    )
)


class NftReader:
    """Reads ``nft -a list ruleset`` line by line, keeping only what may reject with a reset."""

    def __init__(self) -> None:
        self._found = Ruleset()
        self._table: tuple[str, str] | None = None
        self._chain: str | None = None
        self._base: dict[tuple[str, str, str], str] = {}
        self._jumps: dict[tuple[str, str, str], set[str]] = {}
        self._by_map: set[tuple[str, str]] = set()

    def line(self, line: str) -> None:
        """Take in a line without its newline."""
        if line.startswith("\t\t"):
            if self._table is not None and self._chain is not None:
                self._rule(*self._table, self._chain, line)
        elif line.startswith("table "):
            match = _TABLE.match(line)
            self._table, self._chain = (match[1], match[2]) if match else None, None
            if self._table is not None:
                self._found.tables.add(self._table)
        elif line.startswith("\t"):
            match = _CHAIN.match(line)
            self._chain = match[1] if match else None

    def _rule(self, family: str, table: str, chain: str, line: str) -> None:
        place = (family, table, chain)
        base = _BASE.match(line)
        if base is not None:
            self._base[place] = base[2]
            return
        for target in _JUMP.findall(line):
            self._jumps.setdefault((family, table, target), set()).add(chain)
        if _NAMED_MAP.search(line):
            self._by_map.add((family, table))
        if _NAT.search(line):
            self._found.translates = True
        takes = _TAKES.search(line) is not None
        if not takes and not _REJECT.search(line):
            return
        rules = self._found.takers if takes else self._found.rules
        if len(rules) >= RULES_KEPT:
            self._found.whole = False
            return
        handle = _HANDLE.match(line.strip())
        text, number = (handle[1], int(handle[2])) if handle else (line.strip(), 0)
        matches, packets, possible = nft_matches(text)
        if possible:
            text = _COUNTER.sub("counter ", text)[:_TEXT]
            rules.append(Rule("nft", family, table, chain, number, text, matches, None, packets))

    def ruleset(self) -> Ruleset:
        """What was found."""
        found = self._found
        for rules in (found.rules, found.takers):
            rules[:] = [
                replace(rule, hooks=self._hooks(rule.family, rule.table, rule.chain))
                for rule in rules
            ]
        return found

    def _hooks(self, family: str, table: str, chain: str) -> frozenset[str] | None:
        """The hooks that lead to a chain; None: a named map may lead there."""
        if (family, table) in self._by_map:
            return None
        return _reachable(
            chain,
            {key[2]: hook for key, hook in self._base.items() if key[:2] == (family, table)},
            {key[2]: by for key, by in self._jumps.items() if key[:2] == (family, table)},
        )


def _reachable(
    chain: str, base: dict[str, str], jumps: dict[str, set[str]]
) -> frozenset[str] | None:
    """The hooks of the base chains from which jumps lead to a chain."""
    seen, waiting = set(), [chain]
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.add(one)
            waiting += jumps.get(one, ())
    return frozenset(base[one] for one in seen if one in base)


def nft_matches(text: str) -> tuple[tuple[Match, ...], int | None, bool]:
    """The conditions of a rule, its counter, and whether TCP can meet it.

    Reads up to the first part that it does not know: what follows may belong to that.
    """
    found: list[Match] = []
    packets = None
    rest = text.strip()
    while rest:
        match, what = _part(rest)
        if match is None:
            break
        negated, value = bool(match[1]), match[2]
        if what == "other" or (what == "protocol" and not _is_tcp(value, negated)):
            return (), None, False
        if what == "counter":
            packets = int(match[1])
        elif what == "interface":
            if value.strip('"') == "lo":
                found.append(Match("loopback", negated=negated))
        elif what in ("sport", "dport"):
            ports = spans(_elements(value), "-")
            if ports is not None:
                found.append(Match(what, ports=ports, negated=negated))
        elif what in ("source", "target"):
            nets = networks(_elements(value))
            if nets is not None:
                found.append(Match(what, addresses=nets, negated=negated))
        rest = rest[match.end() :].lstrip()
    counted = re.search(r"\bcounter packets (\d+) bytes \d+ reject with tcp reset\b", text)
    return tuple(found), int(counted[1]) if counted else packets, True


def _part(text: str) -> tuple[re.Match[str] | None, str]:
    """The part that a text begins with, and its kind; None: it is none that is known."""
    for pattern, what in _PARTS:
        match = pattern.match(text)
        if match is not None:
            return match, what
    return None, ""


def _is_tcp(value: str, negated: bool) -> bool:
    """Whether TCP is among some protocols; also where that is not known."""
    words = set(_elements(value))
    if not all(re.fullmatch(r"[\w-]+", word) for word in words):
        return True
    return bool({"tcp", "6", "0x06"} & words) != negated


def _elements(value: str) -> list[str]:
    return [word.strip() for word in value.strip("{} ").split(",")]


def spans(words: Iterable[str], separator: str) -> tuple[Span, ...] | None:
    """Ports and ranges of ports as numbers; None: one of them is no number."""
    found = []
    for word in words:
        low, _, high = word.partition(separator)
        if not low.isdecimal() or (high and not high.isdecimal()):
            return None
        found.append((int(low), int(high or low)))
    return tuple(found)


def networks(words: Iterable[str]) -> tuple[Address, ...] | None:
    """Addresses, networks and ranges (``a-b``) of addresses; None: one of them is none."""
    found: list[Address] = []
    try:
        for word in words:
            first, _, last = word.partition("-")
            if last:
                ends = ipaddress.ip_address(first), ipaddress.ip_address(last)
                found += ipaddress.summarize_address_range(*ends)
            else:
                found.append(ipaddress.ip_network(word, strict=False))
    except (ValueError, TypeError):
        return None
    return tuple(found)


# ---- iptables ----

_COUNTED = re.compile(r"(?:\[(\d+):\d+\] )?-A (\S+) (.*)")


class SaveReader:
    """Reads ``iptables-save -c`` (``ip6tables-save -c``) line by line."""

    def __init__(self, tool: str, family: str) -> None:
        """`tool` is what the user calls it: ``iptables``, ``ip6tables-legacy``…"""
        self._tool = tool
        self._family = family
        self._found = Ruleset()
        self._table = ""
        self._numbers: dict[tuple[str, str], int] = {}
        self._jumps: dict[str, dict[str, set[str]]] = {}

    def line(self, line: str) -> None:
        """Take in a line without its newline."""
        if line.startswith("*"):
            self._table = line[1:].strip()
            self._found.tables.add((self._family, self._table))
            return
        match = _COUNTED.match(line)
        if match is None:
            return
        place = (self._table, match[2])
        number = self._numbers[place] = self._numbers.get(place, 0) + 1
        rest = match[3]
        jump = re.search(r"(?:^| )-[jg] (\S+)", rest)
        if jump is not None:
            jumps = self._jumps.setdefault(self._table, {})
            jumps.setdefault(jump[1], set()).add(match[2])
            if jump[1] in ("DNAT", "SNAT", "REDIRECT", "MASQUERADE"):
                self._found.translates = True
        takes = jump is not None and jump[1] in ("REDIRECT", "DNAT", "TPROXY")
        if not takes and "--reject-with tcp-reset" not in rest:
            return
        rules = self._found.takers if takes else self._found.rules
        if len(rules) >= RULES_KEPT:
            self._found.whole = False
            return
        packets = int(match[1]) if match[1] is not None else None
        text = f"-A {match[2]} {rest}"[:_TEXT]
        rules.append(
            Rule(self._tool, self._family, *place, number, text, save_matches(rest), None, packets)
        )

    def ruleset(self) -> Ruleset:
        """What was found."""
        base = {hook.upper(): hook for hook in HOOKS}
        for rules in (self._found.rules, self._found.takers):
            rules[:] = [
                replace(rule, hooks=_reachable(rule.chain, base, self._jumps.get(rule.table, {})))
                for rule in rules
            ]
        return self._found


_OPTIONS = {
    "-s": "source",
    "-d": "target",
    "--sport": "sport",
    "--dport": "dport",
    "--sports": "sport",
    "--dports": "dport",
    "-i": "interface",
    "-o": "interface",
}


def save_matches(text: str) -> tuple[Match, ...]:
    """The conditions of a rule that iptables-save prints."""
    try:
        words = shlex.split(text)
    except ValueError:
        return ()
    found: list[Match] = []
    for index, word in enumerate(words[:-1]):
        what, value = _OPTIONS.get(word), words[index + 1]
        negated = index > 0 and words[index - 1] == "!"
        if what == "interface" and value == "lo":
            found.append(Match("loopback", negated=negated))
        elif what in ("sport", "dport"):
            ports = spans(value.split(","), ":")
            if ports is not None:
                found.append(Match(what, ports=ports, negated=negated))
        elif what in ("source", "target"):
            nets = networks([value])
            if nets is not None:
                found.append(Match(what, addresses=nets, negated=negated))
    return tuple(found)
