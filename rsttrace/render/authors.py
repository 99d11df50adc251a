"""Who may have made a reset, in words and as the table behind the verdict."""

from __future__ import annotations

from rsttrace import model
from rsttrace.render.escape import safe

NAMED_FROM = 0.10
"""An author that is likelier than this is named in the text."""

SHOWN = 4
"""So many authors are in the JSON at most, none less likely than `LISTED_FROM`."""

LISTED_FROM = 0.01

SURE_FROM = 0.90
"""An author that is likelier than this is named alone, without a number."""

COLUMNS: dict[model.Author, str] = {
    model.Author.PEER_SOCKET: "sock",
    model.Author.PEER_HOST: "host",
    model.Author.PEER_FIREWALL: "wall",
    model.Author.PEER_RAW: "raw",
    model.Author.BALANCER: "bal",
    model.Author.REJECT: "rej",
    model.Author.SECOND_HOST: "2nd",
    model.Author.INJECTOR: "inj",
    model.Author.MIRROR: "mirr",
    model.Author.SWAP: "swap",
}
"""The authors' columns in the table."""

_WIDTH = 5


def listed(verdict: model.Verdict) -> list[model.Share]:
    """The authors that the JSON lists."""
    return [share for share in verdict.authors if share.probability >= LISTED_FROM][:SHOWN]


def makers_text(verdict: model.Verdict, most: int = 3) -> str:
    """``a firewall's REJECT rule 62 %, a second host with the same address 31 %``; may be empty.

    Of a forged reset the authors that are not the peer, of an open one all that are left; at most
    so many.
    """
    forged = verdict.origin is model.Origin.FORGED
    shares = [share for share in verdict.authors if not (forged and share.author.is_peer)]
    named = [share for share in shares[:most] if share.probability >= NAMED_FROM] or shares[:1]
    if len(named) == 1 and named[0].probability >= SURE_FROM:
        return safe(named[0].text, 200)
    return ", ".join(f"{safe(share.text, 200)} {_percent(share.probability)}" for share in named)


def _percent(share: float) -> str:
    return f"{min(99, max(1, round(share * 100)))} %"


def table_lines(verdict: model.Verdict) -> list[str]:
    """Authors across, observations down: how often each author makes what was seen, in percent.

    The last line is what follows from all of them and the first, which says how often resets are
    each author's at all. Empty where nothing was weighed.
    """
    rows = [item for item in verdict.considered if item.factors is not None]
    if not rows or len(verdict.authors) < len(COLUMNS):
        return []
    width = max(len(_LEGEND), *(len(item.rule) for item in rows))
    priors = {share.author: share.prior or 0.0 for share in verdict.authors}
    after = {share.author: share.probability for share in verdict.authors}
    lines = [f"{_LEGEND:<{width}}" + "".join(f"{name:>{_WIDTH}}" for name in COLUMNS.values())]
    lines.append(_row("before", priors, width))
    lines += [_row(item.rule, dict(item.factors or {}), width) for item in rows]
    lines.append(_row("together", after, width))
    return lines


_LEGEND = "% of each author's"


def _row(name: str, numbers: dict[model.Author, float], width: int) -> str:
    cells = "".join(f"{_cell(numbers.get(author, 0.0)):>{_WIDTH}}" for author in COLUMNS)
    return f"{safe(name):<{width}}{cells}"


def _cell(share: float) -> str:
    percent = share * 100
    if percent >= 9.95:
        return f"{percent:.0f}"
    if percent >= 0.095:
        return f"{percent:.1f}"
    if percent >= 0.0095:
        return f"{percent:.2f}".lstrip("0")
    return "0"
