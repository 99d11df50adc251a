"""What an entry of rsttrace's JSON lines says about where to look for a forged reset."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rsttrace import jsonl
from rsttrace.errors import UsageError
from rsttrace.model import Origin


@dataclass(frozen=True)
class Clue:
    """What is known of a forged reset: how far it came, how far the peer was, who handed it over.

    `entry` is the id of the entry it comes from, `certain` whether that one says "forged", `sent`
    the first bytes of what we had sent before (``trace --payload``).
    """

    rst_hops: int
    peer_hops: int | None = None
    mac: str | None = None
    entry: int | None = None
    certain: bool = True
    sent: bytes | None = None


def clue_from(lines: Iterable[str], name: str) -> tuple[str, int, Clue]:
    """The last forged reset in rsttrace's JSON lines: its peer's address and port, and the clue.

    Without a forged one the last inconclusive one is taken. `name` is what the lines are called in
    messages.

    Raises:
        UsageError: there is none, or a line is not what rsttrace writes.
    """
    found: tuple[int, jsonl.Object] | None = None
    certain = False
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            made = jsonl.decode(text)
        except jsonl.NotJson as error:
            raise UsageError(
                f"{name}, line {number} is not JSON: {error.detail}",
                hint="give a file that `rsttrace -o json` wrote",
            ) from None
        except jsonl.WrongLine:
            continue  # of another program
        forged = made.get("origin") == Origin.FORGED.value
        if forged or (made.get("origin") == Origin.INCONCLUSIVE.value and not certain):
            found, certain = (number, made), forged
    if found is None:
        raise UsageError(
            f"{name} holds no entry of a forged reset",
            hint="write one with `rsttrace --origin forged -o json`",
        )
    number, made = found
    try:
        line = jsonl.read_entry(made)
    except jsonl.WrongLine as error:
        raise UsageError(
            f"{name}, line {number} is not an entry of rsttrace's: {error}",
            hint="give a file that `rsttrace -o json` wrote",
        ) from None
    return _clue_of_line(line)


def _clue_of_line(line: jsonl.Line) -> tuple[str, int, Clue]:
    reset, verdict = line.entry.reset, line.entry.verdict
    if reset.kind.direction != "received":
        raise UsageError(
            "the reset was not received by this host, so its TTL says nothing about this path"
        )
    if reset.made_here is not None:
        raise UsageError(
            "that reset was made by its own node (made_here): there is nothing to find on the path"
        )
    if verdict.hops_rst is None:
        raise UsageError("the entry does not say how far the reset came (hops.rst is null)")
    clue = Clue(
        rst_hops=verdict.hops_rst,
        peer_hops=verdict.hops_peer,
        mac=reset.neighbor.mac if reset.neighbor else None,
        entry=line.entry.id,
        certain=verdict.origin is Origin.FORGED,
        sent=line.sent,
    )
    return reset.remote.ip, reset.remote.port or 80, clue
