"""Listing the rules of a network namespace that reject with a TCP reset, with its own tools.

nft and iptables run in that namespace, as `rsttrace.programs` starts them, for a bounded time and
with bounded memory and output. Their output is read as it comes, and only what may matter is kept.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Union

from rsttrace import programs
from rsttrace.enrich import reach
from rsttrace.enrich.generation import generation
from rsttrace.enrich.question import Question
from rsttrace.enrich.ruleset import NftReader, Packet, Rule, Ruleset, SaveReader, candidates
from rsttrace.enrich.spaces import Spaces
from rsttrace.limits import (
    RULES_DUTY,
    RULES_EVERY_S,
    RULES_NAMED,
    RULES_NAMESPACES,
    RULES_SOON_NS,
    RULES_TOOL_BYTES,
    RULES_TOOL_S,
)
from rsttrace.model import Note

_CHUNK = 1 << 16
_SLICE_S = 0.05
_IPTABLES_TABLES = ("filter", "mangle", "raw", "security", "nat")

Reader = Union[NftReader, SaveReader]


@dataclass(frozen=True)
class Reading:
    """A namespace's rules at a time (CLOCK_REALTIME); `began_ns` is when listing them began.

    As long as the namespace's `generation` is this one, they are what they were. ``None``: nothing
    tells whether they are.
    """

    rules: Ruleset
    began_ns: int
    ended_ns: int
    generation: int | None = None


class Firewall:
    """The rules of namespaces, listed when they are asked for, and not too often.

    `complaints` are what could not be listed, and why; each is there once.
    """

    def __init__(self, spaces: Spaces, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is listed yet."""
        self._spaces = spaces
        self._clock = clock
        # the last two of a namespace, and when they may be listed again: unchanged, and changed
        self._readings: OrderedDict[object, tuple[Reading, Reading | None, float, float]] = (
            OrderedDict()
        )
        self.complaints: dict[str, None] = {}

    def notes(
        self, question: Question, stopped: Callable[[], bool] = lambda: False
    ) -> tuple[Note, ...]:
        """The rules that can have rejected what a reset answers.

        Raises:
            RsttraceError: the namespace is gone, or cannot be entered.
        """
        found = self._rules(question, stopped)
        if found is None:
            return ()
        now, before = found
        packet = Packet(
            source=question.remote.ip,
            sport=question.remote.port,
            target=question.local.ip,
            dport=question.local.port,
            hook=question.hook,
            loopback=question.loopback,
        )
        older = before if before is not None and before.ended_ns < question.time_ns else None
        rules, moved = candidates(
            now.rules,
            packet,
            older.rules if older is not None else None,
            after=now.began_ns > question.time_ns,
        )
        sure = now.rules.whole and _are_of_then(now, older, question.time_ns)
        return _note(question, rules, moved, sure, self._spaces) if rules else ()

    def redirecting(
        self, question: Question, stopped: Callable[[], bool] = lambda: False
    ) -> tuple[list[Rule], bool]:
        """The rules that can have taken a connection for their own host; whether all are known.

        They see the addresses that the reset has: it was translated back.

        Raises:
            RsttraceError: the namespace is gone, or cannot be entered.
        """
        found = self._rules(question, stopped)
        if found is None:
            return [], False
        ends = question.remote, question.local
        packet = Packet(ends[0].ip, ends[0].port, ends[1].ip, ends[1].port)
        rules = found[0].rules
        return [rule for rule in rules.takers if not rule.excludes(packet)], rules.whole

    def _rules(
        self, question: Question, stopped: Callable[[], bool]
    ) -> tuple[Reading, Reading | None] | None:
        """The rules and those of the listing before; None: they cannot be listed.

        They are listed after the reset in question. Where that would be too often, what is known
        is given, if that is what the rules still are.
        """
        key = (question.netns, question.identity)
        known = self._readings.get(key)
        if known is not None and known[0].began_ns > question.time_ns:
            return known[:2]
        if known is not None and self._clock() < known[2]:
            now = self._spaces.enter(question.netns, question.identity, generation)
            if now is not None and now == known[0].generation:
                return known[:2]
            if self._clock() < known[3]:
                return None
        began, began_ns = self._clock(), time.time_ns()
        found, number = self._spaces.enter(
            question.netns, question.identity, lambda: self._listed(stopped)
        )
        ended = self._clock()
        soon = ended + RULES_DUTY * (ended - began)
        reading = Reading(found, began_ns, time.time_ns(), number)
        before = known[0] if known is not None else None
        self._readings[key] = (reading, before, max(ended + RULES_EVERY_S, soon), soon)
        self._readings.move_to_end(key)
        while len(self._readings) > RULES_NAMESPACES:
            self._readings.popitem(last=False)
        return self._readings[key][:2]

    def _listed(self, stopped: Callable[[], bool]) -> tuple[Ruleset, int | None]:
        """All rules of the thread's namespace (none, if no tool could list any): as `Reading`."""
        asks = programs.find("nft") is not None  # else the question may load nftables' module
        before = generation() if asks else None
        found = self._list(stopped) or Ruleset()
        after = generation() if asks else None
        found.whole = found.whole and before == after
        legacy = any(rule.tool.endswith("-legacy") for rule in (*found.rules, *found.takers))
        return found, after if before == after and not legacy else None

    def _list(self, stopped: Callable[[], bool]) -> Ruleset | None:
        """All rules of the thread's namespace; None: no tool could list any."""
        found = Ruleset()
        done: list[bool] = []
        nft = programs.look("nft")
        if nft.path is None:
            self._complain(f"nft {nft.problem}: rules of nftables are not listed")
        else:
            done.append(self._nft(nft.path, found, stopped))
        listed = found if any(done) else None
        for name, family in (("iptables", "ip"), ("ip6tables", "ip6")):
            for shown, command in self._save_commands(name, family, listed):
                reader = SaveReader(shown, family)
                done.append(self._run([command, "-c"], reader, stopped) == 0)
                if done[-1]:
                    found.add(reader.ruleset())
        found.whole = found.whole and all(done)
        return found if any(done) else None

    def _nft(self, program: str, found: Ruleset, stopped: Callable[[], bool]) -> bool:
        """List nft's rules, without the elements of its sets if it can leave them out."""
        for options in (["-t", "-a"], ["-a"]):
            reader = NftReader()
            code = self._run([program, *options, "list", "ruleset"], reader, stopped)
            if code == 0:
                found.add(reader.ruleset())
                return True
            if code is None:
                break
        return False

    def _save_commands(
        self, name: str, family: str, listed: Ruleset | None
    ) -> list[tuple[str, str]]:
        """What lists iptables' rules where there are any: the word for it, and the program.

        The old iptables loads a table's module when it is asked about a table that is not there:
        it is asked only where the kernel has one in this namespace.
        """
        commands = []
        plain = programs.find(f"{name}-save")
        mine = {(family, table) for table in _IPTABLES_TABLES}
        if listed is None or mine & listed.tables:
            command = programs.find(f"{name}-nft-save") or plain
            if command is not None:
                commands.append((name, command))
        with contextlib.suppress(OSError):
            if reach.read_file(f"{family}_tables_names").strip():
                legacy = programs.look(f"{name}-legacy-save")
                command = legacy.path or plain
                if command is None:
                    self._complain(f"{name}-legacy-save {legacy.problem}: its rules are not listed")
                elif command not in [known for _, known in commands]:
                    commands.append((f"{name}-legacy", command))
        return commands

    def _complain(self, text: str) -> None:
        if len(self.complaints) < 16:  # of each namespace's tools there are but a few kinds
            self.complaints.setdefault(text, None)

    def _run(
        self, command: Sequence[str], reader: Reader, stopped: Callable[[], bool]
    ) -> int | None:
        """Run a tool in the thread's namespace and read its lines.

        Returns:
            Its exit code; None: it did not start, or did not come to its end in time.
        """
        name = os.path.basename(command[0])
        try:
            child = reach.start(command)
        except OSError as error:
            self._complain(f"{name} does not start: {error.strerror}")
            return None
        try:
            problem = _read(child.output, reader, stopped)
            if problem is not None:
                self._complain(f"{name}: {problem}; its rules are not named")
                return None
            code = child.wait(RULES_TOOL_S)
            if code:
                self._complain(f"{name} ends with exit code {code}; its rules are not named")
            return code
        finally:
            child.close()


def _read(descriptor: int, reader: Reader, stopped: Callable[[], bool]) -> str | None:
    """Read a tool's output to its end; what went wrong, if anything."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    ends = time.monotonic() + RULES_TOOL_S
    size, rest = 0, b""
    while True:
        if stopped():
            return "the run ended"
        if time.monotonic() >= ends:
            return f"it takes longer than {RULES_TOOL_S:g} s"
        if not poll.poll(_SLICE_S * 1000):
            continue
        data = os.read(descriptor, _CHUNK)
        if not data:
            return None
        size += len(data)
        if size > RULES_TOOL_BYTES:
            return f"it lists more than {RULES_TOOL_BYTES >> 20} MiB"
        rest = _lines(rest + data, reader)


_WORTH = re.compile(
    rb"^(?:table |\tchain |\*|\t[^\t])|hook|tcp reset|tcp-reset|jump|goto|vmap| -[jg] |^.{0,24}-A "
    rb"|nat|masquerade|redirect|tproxy|(?:addr|port) set"
)
"""What a line must have to be read at all: a list of 100,000 others costs little."""


def _lines(data: bytes, reader: Reader) -> bytes:
    """Hand over the whole lines; what is left of the last one, unless it is of no use for long."""
    *lines, rest = data.split(b"\n")
    for line in lines:
        if _WORTH.search(line):
            reader.line(line.decode("utf-8", "replace"))
    return rest


def _are_of_then(now: Reading, before: Reading | None, time_ns: int) -> bool:
    """Whether they are the rules that a packet of this time met, as far as can be told.

    They are if they have not changed since a listing before it. Else only those that were listed
    soon after it are believed to be.
    """
    known = None if before is None else before.generation
    unchanged = known is not None and known == now.generation
    return unchanged or now.began_ns - time_ns <= RULES_SOON_NS


def _note(
    question: Question, rules: list[Rule], moved: bool, sure: bool, spaces: Spaces
) -> tuple[Note, ...]:
    """The rules in words and as values. `sure`: there were no others."""
    where = spaces.label(question.netns)
    named = "; ".join(f"{place(rule)}: {rule.text}" for rule in rules[:RULES_NAMED])
    more = f"; and {len(rules) - RULES_NAMED} more" if len(rules) > RULES_NAMED else ""
    exact = len(rules) == 1 and sure
    if exact:
        how = "its counter moved" if moved else "no other rule listed there can have made it"
        text = f"by the rule {named} ({where}; {how})"
    else:
        text = f"one of {len(rules)} rules of {where} can have made it: {named}{more}"
    values = {
        "netns": question.netns,
        "netns_name": spaces.name(question.netns),
        "hook": question.hook,
        "exact": exact,
        "rules": [rule_values(rule) for rule in rules[:RULES_NAMED]],
        "candidates": len(rules),
    }
    return (Note("rejecting-rule", text, values),)


def rule_values(rule: Rule) -> dict[str, Any]:
    """A rule as JSON has it."""
    return {
        "tool": rule.tool,
        "family": rule.family,
        "table": rule.table,
        "chain": rule.chain,
        "number": rule.number,
        "rule": rule.text,
        "packets": rule.packets,
    }


def place(rule: Rule) -> str:
    """Where a rule is: nft's handle, or iptables' number in its chain."""
    kind = "handle" if rule.tool == "nft" else "rule"
    return f"{rule.tool} {rule.family} {rule.table} {rule.chain} {kind} {rule.number}"
