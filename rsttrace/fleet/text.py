"""A report's answers as text for people; no line holds a newline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rsttrace.fleet.report import Answers
from rsttrace.judge.authors import WORDS
from rsttrace.render.escape import safe

Row = Mapping[str, Any]

NOTHING_BEFORE = "the store has nothing of the time before: there is nothing to compare with"


def many(count: int, one: str, more: str | None = None) -> str:
    """``1 node``, ``2,000 nodes``."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def text_lines(found: Answers) -> list[str]:
    """All that was found."""
    lines = [f"{totals_text(found)}", f"  other ends: {other_ends_text(found.totals)}"]
    for title, rows in sections(found):
        if rows:
            lines += ["", title, *(f"  {row}" for row in rows)]
    if not found.before:
        lines += ["", NOTHING_BEFORE]
    return lines


def sections(found: Answers) -> Iterable[tuple[str, list[str]]]:
    """Each part's title, and what it says."""
    boxes = [line for row in found.boxes for line in box_lines(row, compared=found.before > 0)]
    if found.boxes_left:
        boxes.append(f"and {many(found.boxes_left, 'box', 'boxes')} with fewer resets each")
    yield "boxes that forge", boxes
    yield "honest causes", [cause_text(row) for row in found.causes]
    yield "who closes idle connections first", [idle_text(row) for row in found.idle]
    yield "whose accept queue overflows", [overflow_text(row) for row in found.overflows]
    yield (
        "who answers un-NATed (or is asked through a raw socket)",
        [unnatted_text(row) for row in found.unnatted],
    )
    yield (
        "new, or much more or less than in the same time before",
        [change_text(row) for row in found.changes],
    )
    yield "clocks that are apart", [clock_text(row) for row in found.clocks]
    yield (
        "addresses that several nodes have: nobody is accused by these",
        [f"{safe(row['ip'])}: {row['nodes']} nodes" for row in found.shared],
    )


def totals_text(found: Answers) -> str:
    """How many of what, and when."""
    totals = found.totals
    return (
        f"{many(totals['resets'], 'reset')} of {many(totals['nodes'], 'node')}, from "
        f"{moment(totals['first'])} to {moment(totals['last'])}: "
        f"{totals['forged']:,} forged, {totals['inconclusive']:,} not decided, "
        f"{totals['peer']:,} the peers' own, {totals['local']:,} sent by the nodes themselves"
    )


def other_ends_text(totals: Row) -> str:
    """What the other ends' own logs say."""
    return (
        f"of {totals['received']:,} received {totals['sent_by_the_peer']:,} were sent by the other "
        f"end's own host, {totals['never_sent']:,} were not, though it was watched; "
        f"{totals['amended']:,} verdicts changed by that"
    )


def moment(text: str | None) -> str:
    """A time to the second."""
    return "?" if text is None else text[:19].replace("T", " ")


def listed(names: Iterable[Any], count: int | None = None) -> str:
    """Names, and how many more there are."""
    shown = [safe(str(name)) for name in names]
    more = 0 if count is None else count - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")


def maker_text(box: Row) -> str:
    """What kind of device."""
    return listed(box["devices"]) or listed(WORDS_OF.get(each, each) for each in box["authors"])


WORDS_OF = {author.value: words for author, words in WORDS.items()}


def box_lines(box: Row, *, compared: bool) -> list[str]:
    """A box: what it did, where it is, and how each side sees it."""
    news = ""
    if compared:
        news = f"; {box['before']:,} in the same time before" if box["before"] else "; new"
    lines = [
        f"{many(box['resets'], 'reset')} by {maker_text(box) or 'a device'}: "
        f"{many(box['nodes'], 'node')} ({listed(box['some_nodes'], box['nodes'])}), "
        f"{many(box['peers'], 'peer')} in {listed(box['prefixes'])}; "
        f"since {moment(box['first'])}, last {moment(box['last'])}"
    ]
    lines.append(f"    {place_text(box)}")
    lines += [f"    seen {side_text(side)}" for side in box["sides"]]
    triggers = listed(f'"{each}"' for each in box["triggers"]) or "what is not known"
    lines.append(f"    after: {triggers}; ports {listed(box['ports'])}")
    if box["never_sent"]:
        lines.append(
            f"    {box['never_sent']:,} of them the other end's own log has not, though it was "
            "watched all the time"
        )
    return [line + (news if number == 0 else "") for number, line in enumerate(lines)]


def place_text(box: Row) -> str:
    """Where a box stands, by both ends."""
    place = box["place"]
    if place is None:
        return (
            "place unknown (of no connection both ends were reset, or it takes over others' TTLs)"
        )
    return (
        f"router {place['router']} of {place['of']} on the way from {safe(place['from'])} to "
        f"{safe(place['to'])}, by both ends of {many(place['connections'], 'connection')}"
    )


def side_text(side: Row) -> str:
    """What one group of victims sees of a box."""
    where = "at a distance that is not known"
    if side["hops"] is not None:
        where = "on the link" if side["hops"] == 0 else f"{many(side['hops'], 'hop')} away"
    handed = f", handed over by {handed_text(side)}" if side["mac"] else ""
    ids = f"; IP IDs {' or '.join(side['ip_ids'])}" if side["ip_ids"] else ""
    return (
        f"{where}{handed}, by {many(side['nodes'], 'node')} "
        f"({listed(side['some_nodes'], side['nodes'])}), {many(side['resets'], 'reset')}{ids}"
    )


def handed_text(side: Row) -> str:
    """The neighbour that its packets come from."""
    vendor = f" ({safe(side['vendor'])})" if side["vendor"] else ""
    neighbor = f" = {safe(side['neighbor'])}" if side["neighbor"] else ""
    return f"{safe(side['mac'])}{vendor}{neighbor}"


def owner_text(row: Row) -> str:
    """Whose socket it was."""
    return safe(row["owner"]) or "unknown program"


def cause_text(row: Row) -> str:
    """An honest cause."""
    idle = f", after {row['idle_s']} s idle" if row["idle_s"] and row["idle_s"] > 0 else ""
    by = f" (closed by {safe(row['closed_by'])}{idle})" if row["closed_by"] else ""
    return (
        f"{row['resets']:,} {safe(row['direction'])} by {owner_text(row)}, {safe(row['cause'])}"
        f"{by}: {many(row['nodes'], 'node')}, {many(row['peers'], 'peer')}; "
        f"e.g. {safe(row['example'], 160)}"
    )


def idle_text(row: Row) -> str:
    """Who closes idle connections first."""
    span = f"{row['least_s']} to {row['most_s']} s" if row["least_s"] != row["most_s"] else ""
    return (
        f"{address(row['closer'])} port {row['port']}"
        f"{' (' + safe(row['owner']) + ')' if row['owner'] else ''} after {row['typical_s']} s idle"
        f"{' (' + span + ')' if span else ''}, {many(row['resets'], 'time')}; used after that by "
        f"{many(row['used_by'], 'other end')}"
    )


def overflow_text(row: Row) -> str:
    """Whose backlog overflows."""
    return (
        f"{owner_text(row)}, port {row['port']}: {many(row['resets'], 'reset')} to "
        f"{many(row['clients'], 'client')}, on {many(row['nodes'], 'node')} "
        f"({listed(row['some_nodes'], row['nodes'])}); e.g. {safe(row['example'], 160)}"
    )


def unnatted_text(row: Row) -> str:
    """Who answers from an address that was not asked."""
    known = " ".join(filter(None, [safe(row["owner"]), safe(row["its_node"])]))
    return (
        f"{address(row['answers'])} port {row['port']}{' (' + known + ')' if known else ''}: "
        f"{many(row['resets'], 'SYN-ACK')} reset by {many(row['nodes'], 'node')} that had not "
        f"asked it ({listed(row['some_nodes'], row['nodes'])})"
    )


def change_text(row: Row) -> str:
    """What is new, or much more or less."""
    author = f" by {safe(row['author'])}" if row["author"] else ""
    owner = f" ({safe(row['owner'])})" if row["owner"] else ""
    numbers = f"{row['before']:,} before, {row['now']:,} now"
    return f"{safe(row['verdict'])}{author}, {safe(row['cause'])}{owner}: {numbers}"


def clock_text(row: Row) -> str:
    """A clock that is not the others'."""
    way = "ahead of" if row["ahead_s"] > 0 else "behind"
    return (
        f"{safe(row['node'])} is {abs(row['ahead_s']):.1f} s {way} the others "
        f"({many(row['others'], 'node')}, {many(row['resets'], 'reset')} that both ends know of)"
    )


def address(text: str) -> str:
    """An address as people write it."""
    return safe(text.removeprefix("::ffff:"))
