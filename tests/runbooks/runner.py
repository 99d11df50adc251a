"""Runs the console blocks of a runbook in the lab, and compares what they print.

A block says in a comment before it which scene it needs, and what it waits for::

    <!-- run: rejected, until: FORGED -->
    ```console
    $ sudo rsttrace --port 3306
    14:07:28.282  received  FORGED 99%  …
    ```

``$`` is the client (of a cluster: the node); ``server$`` another machine. Commands that go on until
somebody ends them (rsttrace's trace, tcpdump) are started first, all of a block; then the scene's
traffic is made, and they get a Ctrl-C once each has shown what it waits for.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rsttrace.demo.lab import Lab
from tests.lab.harness import DEADLINE_S, PLAN, SBIN, poll_until
from tests.runbooks.scenes import NETWORKS, SCENES, say_last

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"

BLOCK = re.compile(
    r"<!-- run: (?P<scene>[\w-]+)(?:, until: (?P<until>[^\n]+?))? -->\n"
    r"```console\n(?P<text>.*?)```\n",
    re.DOTALL,
)
COMMAND = re.compile(r"(?P<role>\w*)\$ (?P<words>.+)")
LAST = b"what came before this is in the capture"
HOLD_S = "1"
"""Verdicts wait so long for what the node is asked; else a slow machine shows them twice."""

ARMED = ("tracing resets", "listening on")
COMMANDS = ("read", "compare", "locate", "doctor", "demo", "schema", "check", "--version")

SHIM = f"""#!/bin/sh
case "$1" in
{"|".join(COMMANDS)}) exec {sys.executable} -m rsttrace "$@" ;;
*) exec {sys.executable} -m rsttrace "$@" --plan {PLAN} $RUNBOOK_OPTIONS ;;
esac
"""


@dataclass
class Command:
    """A command of a block, where it is typed, and what it prints."""

    role: str
    words: str
    output: list[str] = field(default_factory=list)

    @property
    def goes_on(self) -> bool:
        """Whether it runs until it is told to end."""
        program, *rest = [word for word in shlex.split(self.words) if word != "sudo"]
        first = rest[0] if rest else ""
        return program == "tcpdump" or (program == "rsttrace" and first not in COMMANDS)

    def text(self) -> str:
        """As it stands in a document."""
        return "\n".join([f"{self.role}$ {self.words}", *self.output]) + "\n"


@dataclass
class Block:
    """A console block of a document."""

    path: Path
    scene: str
    until: str | None
    commands: list[Command]

    @property
    def name(self) -> str:
        """Says which it is: for test ids."""
        return f"{self.path.stem}-{self.scene}-{self.commands[0].words[:40]}"

    def text(self) -> str:
        """As it stands in the document."""
        until = f", until: {self.until}" if self.until else ""
        body = "".join(command.text() for command in self.commands)
        return f"<!-- run: {self.scene}{until} -->\n```console\n{body}```\n"


def blocks(path: Path) -> list[Block]:
    """The blocks of a document that can be run."""
    found = []
    for match in BLOCK.finditer(path.read_text(encoding="utf-8")):
        commands: list[Command] = []
        for line in match["text"].splitlines():
            command = COMMAND.fullmatch(line)
            if command is not None:
                commands.append(Command(command["role"], command["words"]))
            else:
                commands[-1].output.append(line)
        found.append(Block(path, match["scene"], match["until"], commands))
    return found


def documents() -> list[Path]:
    """All runbooks."""
    return sorted(path for path in RUNBOOKS.glob("*.md") if path.name != "README.md")


class Stage:
    """The labs in which blocks are run, each built when it is first needed. A context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._labs: dict[str, Lab] = {}
        self._stack = contextlib.ExitStack()
        for name, text in (("rsttrace", SHIM), ("sudo", '#!/bin/sh\nexec "$@"\n')):
            path = folder / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def play(self, block: Block) -> list[Command]:
        """Run a block: its commands with what they really print."""
        network, scene = SCENES[block.scene]
        if network not in self._labs:
            self._labs[network] = self._stack.enter_context(NETWORKS[network].build())
        lab = self._labs[network]
        folder = self._folder / block.path.stem
        folder.mkdir(exist_ok=True)
        with scene(lab, folder) as traffic, contextlib.ExitStack() as stack:
            running = []
            for command in block.commands:
                process = self._start(network, command, folder)
                started = _Running(command, process, block.until, folder)
                stack.callback(started.kill)
                if command.goes_on:
                    poll_until(started.is_armed, f"{command.words} to be armed")
                else:
                    started.finish()
                running.append(started)
            traffic()
            if any(started.file is not None for started in running):
                say_last(lab, LAST)
            for started in running:
                if started.command.goes_on:
                    started.wait()
            return [started.end() for started in running]

    def _start(self, network: str, command: Command, folder: Path) -> subprocess.Popen[str]:
        there = NETWORKS[network]
        lab = self._labs[network]
        role = command.role or there.roles[0]
        if there.machines:
            options = ["--viewpoint", "netns", "--netns", str(lab.inode(role))]
        else:
            options = [f"--netns={lab.inode(one)}" for one in there.roles]
        environment = {
            **os.environ,
            "PATH": f"{self._folder / 'bin'}:{SBIN}",
            "RUNBOOK_OPTIONS": " ".join([*options, "--hold", HOLD_S]),
            "TZ": "UTC",
            "LC_ALL": "C.UTF-8",
            "COLUMNS": "120",
        }
        return subprocess.Popen(
            ["ip", "netns", "exec", lab.name(role), "bash", "-c", f"exec {command.words}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environment,
        )


class _Running:
    """A command that was started; its output is read in the background."""

    def __init__(
        self, command: Command, process: subprocess.Popen[str], until: str | None, folder: Path
    ) -> None:
        self.command = command
        self._process = process
        self._until = until
        written = re.search(r"tcpdump .*-w (\S+)", command.words)
        self.file = folder / written[1] if written else None
        self._out: list[str] = []
        self._err: list[str] = []
        streams = ((process.stdout, self._out), (process.stderr, self._err))
        self._readers = [threading.Thread(target=_read, args=pair, daemon=True) for pair in streams]
        for reader in self._readers:
            reader.start()

    def is_armed(self) -> bool:
        """Whether it says that it is ready."""
        said = "".join(self._err)
        assert self._process.poll() is None, said
        return any(word in said for word in ARMED)

    def has_shown(self) -> bool:
        """Whether it has shown what it is to wait for."""
        if self.file is not None:
            return LAST in self.file.read_bytes()
        if self._until is None:
            return True
        return re.search(self._until, "".join(self._out)) is not None

    def wait(self) -> None:
        """Wait until it has shown that."""
        try:
            poll_until(self.has_shown, f"{self.command.words}: {self._until}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it printed: {self._out} {self._err}") from None

    def finish(self) -> None:
        """Wait until it ends by itself."""
        self._process.wait(DEADLINE_S * 3)

    def end(self) -> Command:
        """Press Ctrl-C if it goes on; the command with what it printed."""
        if self.command.goes_on and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        self._process.wait(DEADLINE_S)
        for reader in self._readers:
            reader.join(DEADLINE_S)
        assert self._process.returncode == 0, (self.command.words, "".join(self._err))
        lines = "".join(self._out).rstrip().splitlines()
        return Command(self.command.role, self.command.words, lines)

    def kill(self) -> None:
        """End it, however it is."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for reader in self._readers:
            reader.join(DEADLINE_S)
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()


def _read(stream: Iterator[str], into: list[str]) -> None:
    for line in stream:
        into.append(line)


SAME = [
    (
        r"\b([0-9a-f]{2}:){5}[0-9a-f]{2}( \([^()]*(\([^()]*\))?[^()]*\))?",
        "MAC",
    ),  # before TIME, which a MAC may look like
    (r"\d{4}-\d\d-\d\d[T ]?", ""),
    (r"\d\d:\d\d:\d\d(\.\d+)?", "TIME"),
    (r"  \[[^\]]*(\[\d+\][^\]]*)?\]$", ""),  # the process: known or not, by who was faster
    (r"netns[: ]\S+", "NETNS"),
    (r":(3[2-9]|[45]\d|6[0-5])\d{3}\b", ":PORT"),
    (r"\b\d[\d,.]* ?(ns|µs|ms|s|min|h)\b", "SPAN"),
    (r"\b\d+ ?%", "PERCENT"),
    (r"\b(?!\d+ hops?\b)(?<![\d.])\d+\b(?![.]\d)", "NUMBER"),
    (r"\b(ahead of|behind)\b", "BESIDE"),
    (r"\s+", " "),
]
"""What differs from one run to the next."""


def shape(line: str) -> str:
    """A line without what differs from one run to the next."""
    for pattern, word in SAME:
        line = re.sub(pattern, word, line)
    return line.strip()


def is_evidence(line: str) -> bool:
    """Whether a line is an observation: how many there are depends on how fast the machine is."""
    return re.match(r"\s+[+-] ", line) is not None


def differences(documented: Command, real: Command) -> list[str]:
    """The documented lines that the real output lacks; of observations, one of each reset has to be
    there."""
    seen = {shape(line) for line in real.output}
    # A long sentence may be wrapped at another word.
    whole = shape(" ".join(real.output))
    missing = [
        line
        for line in documented.output
        if line.strip() not in ("", "…") and not is_evidence(line) and shape(line) not in whole
    ]
    evidence = [shape(line) for line in documented.output if is_evidence(line)]
    if evidence and not seen & set(evidence):
        missing.append(evidence[0])
    return missing


def written_anew(path: Path, stage: Stage) -> str:
    """The document with the output of a run of now."""
    text = path.read_text(encoding="utf-8")
    for block in blocks(path):
        played = Block(block.path, block.scene, block.until, stage.play(block))
        assert block.text() in text
        text = text.replace(block.text(), played.text(), 1)
    return text
