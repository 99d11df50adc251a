"""The screen of ``rsttrace top``, on Textual."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Input, Static
from textual.widgets.data_table import RowDoesNotExist

from rsttrace.errors import RsttraceError
from rsttrace.judge.facts import plural
from rsttrace.model import Entry, Origin
from rsttrace.render.authors import listed
from rsttrace.render.escape import safe
from rsttrace.render.picture import picture_lines
from rsttrace.render.text import entry_lines
from rsttrace.top.board import COLUMNS, SORTS, Board, Row, Table
from rsttrace.top.feed import Feed

TICK_S = 0.5
"""How often the screen is drawn anew, in seconds."""

COLOURED = {
    Origin.FORGED: "bold red",
    Origin.PEER: "green",
    Origin.LOCAL: "cyan",
    Origin.INCONCLUSIVE: "yellow",
}
PLAIN = {Origin.FORGED: "bold", Origin.PEER: "", Origin.LOCAL: "", Origin.INCONCLUSIVE: "bold"}
"""Where there are to be no colours (NO_COLOR): as grey levels, red would be too dark to read."""

_WORDS = {
    Origin.FORGED: "forged",
    Origin.INCONCLUSIVE: "inconclusive",
    Origin.PEER: "peer",
    Origin.LOCAL: "local",
}

Saver = Callable[[Path, Sequence[Entry]], str]
"""Writes entries to a file, and says in words what it did."""

HELP = """\
  up, down    choose a reset          tab     next table (authors, peers, ...)
  enter       all about it            space   pause, and go on
  /           filter as you type      s       sort by the next column
  esc         back; no filter         w       save what is listed as JSON lines
  q           quit                    p       save it as pcapng, for Wireshark

Colours: forged, inconclusive, the peer's own, this host's. The verdict says the same in words.
"""


class Details(ModalScreen[None]):
    """All about one reset."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q", "dismiss", "back"),
    ]
    CSS = """
    Details { align: center middle; }
    Details VerticalScroll { width: 100%; height: 100%; background: $surface; padding: 0 1; }
    """

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__()
        self._lines = lines

    def compose(self) -> ComposeResult:
        """One text that scrolls."""
        with VerticalScroll():
            yield Static(Text("\n".join(self._lines)))
        yield Footer()


class Question(ModalScreen[str]):
    """Asks for a file's name."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss('')", "back")]
    CSS = """
    Question { align: center bottom; }
    """

    def __init__(self, what: str, name: str) -> None:
        super().__init__()
        self._what, self._name = what, name

    def compose(self) -> ComposeResult:
        """One line to write in."""
        field = Input(self._name)
        field.border_title = self._what
        yield field

    @on(Input.Submitted)
    def answer(self, event: Input.Submitted) -> None:
        """That is the name."""
        self.dismiss(event.value)


class Top(App[None]):
    """The screen.

    Args:
        feed: where entries come from; it must have been entered.
        what: what is looked at, for the first line.
        savers: how to save, by the letter of the key.
        utc: whether times are in UTC.
    """

    TITLE = "rsttrace top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #head { height: 3; }
    #rows { height: 1fr; }
    #tables { height: 6; border-top: solid $primary; }
    #evidence { height: 6; border-top: solid $primary; overflow-y: auto; }
    #filter { display: none; height: 3; }
    #filter.open { display: block; }
    .plain DataTable > .datatable--cursor { text-style: reverse; }
    .plain DataTable > .datatable--header { text-style: underline; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("space", "pause", "pause"),
        Binding("slash", "filter", "filter", key_display="/"),
        Binding("s", "sort", "sort"),
        Binding("tab", "table", "table", priority=True),
        Binding("w", "save('json')", "save"),
        Binding("p", "save('pcapng')", "pcapng"),
        Binding("escape", "unfilter", "no filter", show=False),
        Binding("question_mark", "explain", "help", key_display="?"),
    ]

    def __init__(
        self, feed: Feed, what: str, savers: dict[str, Saver], *, utc: bool = False
    ) -> None:
        plain = bool(os.environ.get("NO_COLOR"))  # no-color.org
        super().__init__(ansi_color=plain)
        self.set_class(plain, "plain")
        if plain:
            own = [name for name in self.available_themes if "ansi" in name]  # the terminal's own
            self.theme = own[0] if own else self.theme
        self._styles = PLAIN if plain else COLOURED
        self._feed = feed
        self._what = safe(what, 200)
        self._savers = savers
        self._board = Board(utc=utc)
        self._utc = utc
        self._words = ""
        self._sort = SORTS[0]
        self._table = Table.AUTHORS
        self._paused = False
        self._drawn: tuple[object, ...] = ()
        self._rates: dict[Origin | str, float] = {}
        self._listed: list[Row] = []

    def compose(self) -> ComposeResult:
        """Head, the last resets, the selected one's evidence, a table, the keys."""
        yield Static(id="head")
        rows: DataTable[Text] = DataTable(id="rows", cursor_type="row", zebra_stripes=False)
        yield rows
        yield Static(id="evidence")
        yield Static(id="tables")
        yield Input(id="filter", placeholder="words that a line must have: an address, forged, ...")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to draw."""
        rows = self.query_one("#rows", DataTable)
        for name in COLUMNS:
            rows.add_column(name, key=name)
        rows.focus()
        self.set_interval(TICK_S, self._tick)
        self._tick()

    # ---- drawing ----

    def _tick(self) -> None:
        now = time.monotonic()
        if not self._paused:
            for entry in self._feed.take():
                self._board.add(entry, now)
        self._rates = self._board.rates(now) if self._feed.live else {}
        self._draw_head()
        wanted = (self._board.changes, self._words, self._sort)
        if wanted != self._drawn:
            self._drawn = wanted
            self._draw_rows()
        self._draw_table()

    def _draw_head(self) -> None:
        board = self._board
        head = Text()
        state = "PAUSED" if self._paused else "ended" if self._feed.ended else "live"
        head.append(f"{self._what}  [{state}]  {plural(board.shown, 'reset')}\n")
        for origin, word in _WORDS.items():
            head.append(f"{word} {board.origins[origin]}", self._styles[origin])
            rate = self._rates.get(origin, 0.0)
            head.append(f" ({rate:.1f}/s)  " if rate else "  ")
        second = [f"filter: {safe(self._words)}"] if self._words else []
        if self._sort != SORTS[0]:
            second.append(f"by {self._sort}")
        if self._feed.left_out:
            second.append(f"{self._feed.left_out} left out: too many for a screen")
        if self._feed.not_understood:
            second.append(f"{self._feed.not_understood} lines not understood")
        if said := self._feed.said():
            second.append(said)
        head.append("\n" + "  ".join(second))
        self.query_one("#head", Static).update(head)

    def _draw_rows(self) -> None:
        rows = self.query_one("#rows", DataTable)
        kept = self._selected()
        at_top = rows.cursor_row <= 0
        self._listed = self._board.rows(self._words, by=self._sort)
        rows.clear()
        for row in self._listed:
            cells = [Text(cell, no_wrap=True) for cell in row.cells()]
            cells[2].stylize(self._styles[row.origin])
            rows.add_row(*cells, key=str(row.key))
        if kept is not None and not at_top:
            try:
                rows.move_cursor(row=rows.get_row_index(str(kept)))
            except RowDoesNotExist:
                rows.move_cursor(row=0)
        self._draw_evidence()

    def _selected(self) -> int | None:
        rows = self.query_one("#rows", DataTable)
        if 0 <= rows.cursor_row < len(self._listed):
            return self._listed[rows.cursor_row].key
        return None

    def _draw_evidence(self) -> None:
        key = self._selected()
        entry = None if key is None else self._board.entry(key)
        text = Text("no reset yet")
        if entry is not None:
            _, *lines = entry_lines(entry, utc=self._utc)
            lines = [line.strip() for line in lines]
            if not lines:
                lines = [f"+ {safe(found.text, 300)}" for found in entry.verdict.evidence]
            text = Text("\n".join(lines) or "this host sent it itself")
        self.query_one("#evidence", Static).update(text)

    def _draw_table(self) -> None:
        shown = Text(no_wrap=True, overflow="ellipsis")
        for table in Table:
            shown.append(f" {table.value} ", "reverse" if table is self._table else "dim")
        for name, count in self._board.top(self._table, 4):
            rate = self._rates.get(name, 0.0)  # of a cause
            shown.append(f"\n{count:>7}  {f'({rate:.1f}/s)  ' if rate else ''}{name}")
        self.query_one("#tables", Static).update(shown)

    @on(DataTable.RowHighlighted)
    def _moved(self) -> None:
        self._draw_evidence()

    # ---- keys ----

    @on(DataTable.RowSelected)
    def _open(self) -> None:
        key = self._selected()
        entry = None if key is None else self._board.entry(key)
        if entry is None:
            return
        # a line of JSON does not hold the baseline
        told = entry_lines(entry, verbose=True, utc=self._utc)
        lines = [line for line in told if line.strip() != "baseline: none"]
        if picture := picture_lines(entry):
            lines += ["", "the way it came", *picture]
        if shares := listed(entry.verdict):
            lines += ["", "who may have made it"]
            lines += [f"{share.probability:>7.1%}  {safe(share.text, 200)}" for share in shares]
        self.push_screen(Details(lines))

    def action_pause(self) -> None:
        """Keep what is there, or go on."""
        self._paused = not self._paused
        self._tick()

    def action_table(self) -> None:
        """Show the next table."""
        tables = list(Table)
        self._table = tables[(tables.index(self._table) + 1) % len(tables)]
        self._draw_table()

    def action_sort(self) -> None:
        """Sort by the next column."""
        self._sort = SORTS[(SORTS.index(self._sort) + 1) % len(SORTS)]
        self._tick()

    def action_filter(self) -> None:
        """Write words to filter by."""
        field = self.query_one("#filter", Input)
        field.add_class("open")
        field.focus()

    @on(Input.Changed, "#filter")
    def _filtered(self, event: Input.Changed) -> None:
        self._words = event.value
        self._tick()

    @on(Input.Submitted, "#filter")
    def _filter_done(self) -> None:
        self.query_one("#filter", Input).remove_class("open")
        self.query_one("#rows", DataTable).focus()

    def action_unfilter(self) -> None:
        """No filter any more."""
        field = self.query_one("#filter", Input)
        field.value = ""
        self._filter_done()

    def action_explain(self) -> None:
        """Say what the keys do."""
        self.push_screen(Details(HELP.splitlines()))

    def action_save(self, form: str) -> None:
        """Ask for a name, and save what is listed."""
        entries = [self._board.entry(row.key) for row in self._listed]
        chosen = sorted(
            (entry for entry in entries if entry is not None), key=lambda entry: entry.reset.time_ns
        )

        def save(name: str | None) -> None:
            if not name:
                return
            try:
                self.notify(safe(self._savers[form](Path(name), chosen), 300))
            except (OSError, RsttraceError) as error:
                self.notify(safe(str(error), 300), severity="error", timeout=20)

        suffix = "jsonl" if form == "json" else "pcapng"
        what = plural(len(chosen), "reset")
        self.push_screen(Question(f"save {what} to", f"resets.{suffix}"), save)
