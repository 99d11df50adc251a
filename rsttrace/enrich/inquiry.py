"""Asking the node about a reset: its sockets, its rules, its tracked connections.

Answers take milliseconds: ask beside a trace, and not for every reset of a storm.
"""

from __future__ import annotations

from collections.abc import Callable

from rsttrace.enrich.escaped import Escapes, Learned
from rsttrace.enrich.firewall import Firewall
from rsttrace.enrich.listeners import Listeners
from rsttrace.enrich.netns import NetnsDirectory
from rsttrace.enrich.owner import owners as make_owners
from rsttrace.enrich.question import Answer, Question
from rsttrace.enrich.redirected import Owns, Redirects
from rsttrace.enrich.spaces import Spaces

NOTES = (
    "escaped-nat",
    "rejecting-rule",
    "answered-here",
    "redirected-here",
    "listens-now",
    "listener-gone",
    "listens-local-only",
    "listens-other-address",
    "listens-elsewhere",
    "listens-other-port",
)
"""Every note that is made here, or by `rsttrace.enrich.Enricher`."""


class Inquiry:
    """Answers questions. Not for several threads at once; holds no namespace open.

    Args:
        directory: finds namespaces.
        owns: whose an address is, for the note `redirected-here`.
        learned: what the kernel side has learned of a connection (``None``: nobody asks it).
        whole_node: also look into other namespaces than the one in question.
    """

    def __init__(
        self,
        directory: NetnsDirectory,
        owns: Owns,
        learned: Learned | None = None,
        whole_node: bool = True,
    ) -> None:
        spaces, owners = Spaces(directory, whole_node), make_owners()
        self._firewall = Firewall(spaces)
        self._redirects = Redirects(spaces, self._firewall, owns)
        self._listeners = Listeners(spaces, owners)
        self._escapes = Escapes(spaces, owners, learned)

    def answer(self, question: Question, stopped: Callable[[], bool] = lambda: False) -> Answer:
        """What the node knows; no note if it knows nothing.

        Raises:
            RsttraceError: the namespace is gone, or cannot be entered.
            OSError: the kernel refuses something.
        """
        if question.what == "rules":
            notes = self._firewall.notes(question, stopped)
        elif question.what == "listeners":
            taken = self._redirects.notes(question, stopped)
            notes = taken or self._listeners.notes(question)
        else:
            notes = self._escapes.notes(question)
        return Answer(notes, tuple(self._firewall.complaints))
