"""What a trace probes that was asked for no probe: nothing. It spares the start their modules."""

from __future__ import annotations

from rsttrace.commands.run import Run
from rsttrace.model import Entry, Reset, Verdict


class Unasked:
    """As `rsttrace.commands.probing.Probing`, where no option asks for anything."""

    def __enter__(self) -> Unasked:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """There is nothing to close."""

    def ask(self, entry: Entry) -> None:
        """Nobody is asked."""

    def ask_peer(self, reset: Reset, verdict: Verdict) -> None:
        """No peer is asked."""

    def is_own(self, reset: Reset) -> bool:
        """No reset is of a question of ours."""
        del reset
        return False

    def show(self, run: Run) -> None:
        """Nothing is found."""

    def finish(self, run: Run) -> None:
        """Nothing is under way."""

    def tell_left_out(self, run: Run) -> None:
        """Nothing was left out."""
