"""What the judge was given in a run, kept with the truth, to be judged again in seconds.

``--record FILE`` writes one, ``--replay FILE`` judges it. A recording holds pickles of the model's
classes: make it anew where they have changed beyond what their defaults allow. Load none that you
did not make: a pickle can run anything.
"""

from __future__ import annotations

import functools
import itertools
import json
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rsttrace.commands.run import Options
from rsttrace.errors import RsttraceError
from rsttrace.judge import fingerprints
from rsttrace.judge.fingerprints import Fingerprints
from rsttrace.judge.history import History
from rsttrace.judge.verdict import judge
from rsttrace.model import Entry, Reset, Verdict
from rsttrace.render.json import entry_line
from tests.accuracy import captures
from tests.accuracy.case import Outcome
from tests.accuracy.run import Played, outcomes_of, outcomes_of_dumps
from tests.lab.harness import Json

Decide = Callable[[Reset], Verdict]


def shipped(reset: Reset) -> Verdict:
    """The judge as the command line has it, with the fingerprints that come with it."""
    return judge(reset, _fingerprints())


@functools.cache
def _fingerprints() -> Fingerprints:
    return fingerprints.load()


@dataclass
class Recording:
    """A run of the live lab (`played`, `events`) and of the captures (`labels`, `read` by file).

    `dumps` are the captures taken in the live lab, by name.

    Events are pickles: see `tests.accuracy.recorder`. They stay packed, as each judging changes
    what it is given.
    """

    played: list[Played] = field(default_factory=list)
    events: list[bytes] = field(default_factory=list)
    labels: list[captures.Label] = field(default_factory=list)
    read: dict[str, list[bytes]] = field(default_factory=dict)
    dumps: dict[str, list[bytes]] = field(default_factory=dict)

    def take(self, played: list[Played], folder: Path) -> None:
        """Take in a run of the live lab, whose records are in a folder: ``live``, and dumps."""
        self.played, self.events = played, unpack(folder / "live")
        names = {name for one in played for name in one.dumps.values()}
        self.dumps = {name: unpack(folder / name) for name in names}

    def live(self, decide: Decide = shipped) -> list[Outcome]:
        """What is said of the live lab's resets."""
        return outcomes_of(self.played, entries(self.events, decide))

    def dumped(self, decide: Decide = shipped) -> list[Outcome]:
        """What is said of the captures that were taken in the live lab."""
        said = {name: entries(events, decide) for name, events in self.dumps.items()}
        return outcomes_of_dumps(self.played, said)

    def captured(self, decide: Decide = shipped) -> list[Outcome]:
        """What is said of the labelled captures."""
        return captures.outcomes(
            self.labels, {name: entries(events, decide) for name, events in self.read.items()}
        )

    def save(self, path: Path) -> None:
        """Write it to a file."""
        path.write_bytes(pickle.dumps(self))


def load(path: Path) -> Recording:
    """Read a recording that this program wrote.

    Raises:
        RsttraceError: there is none, or the model's classes have changed too much since.
    """
    hint = "make it anew with --record"
    try:
        found = pickle.loads(path.read_bytes())
    except OSError as error:
        raise RsttraceError(f"cannot read the recording {path}: {error.strerror}") from error
    except Exception as error:
        raise RsttraceError(f"cannot unpack the recording {path}: {error!r}", hint=hint) from error
    if not isinstance(found, Recording):
        raise RsttraceError(f"{path} is no recording of tests.accuracy", hint=hint)
    return found


def unpack(path: Path) -> list[bytes]:
    """The records that `tests.accuracy.recorder` wrote, each still a pickle."""
    records: list[bytes] = []
    with path.open("rb") as file:
        while True:
            begin = file.tell()
            try:
                pickle.load(file)
            except EOFError:
                return records
            end = file.tell()
            file.seek(begin)
            records.append(file.read(end - begin))


def entries(events: Iterable[bytes], decide: Decide = shipped) -> list[Json]:
    """The entries, in JSON's types, that rsttrace writes when its judge is given this."""
    history = History(hold_ns=round(Options().hold_s * 1e9), decide=decide)
    numbers = itertools.count(1)
    made: list[Json] = []
    for packed in events:
        event = pickle.loads(packed)
        if isinstance(event, tuple):
            history.add(*event)
            continue
        for case in history.due(event):
            assert case.verdict is not None
            entry = Entry(next(numbers), case.reset, case.verdict, case.entry)
            if case.entry is None:
                case.entry = entry.id
            made.append(json.loads(entry_line(entry, explain=True)))
    return made
