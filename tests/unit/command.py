"""The command in a process of its own, without the time that a fresh Python takes to import it."""

from __future__ import annotations

import io
import os
import resource
import sys
import tempfile
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rsttrace import cli


@dataclass(frozen=True)
class Done:
    """How it ended, and what it wrote."""

    returncode: int
    stdout: bytes
    stderr: bytes


def run(
    *arguments: str,
    stdin: bytes | Path = b"",
    stdout: int | None = None,
    most_bytes: int | None = None,
    cwd: Path | None = None,
    environment: dict[str, str] | None = None,
) -> Done:
    """Run the command with these arguments, to its end.

    `stdin` is what it reads, or the file that it reads it from; `stdout` a descriptor that takes
    its output; `most_bytes` what a file that it writes may have.
    """
    reading, writing = zip(os.pipe(), os.pipe())
    with tempfile.TemporaryFile() as fed:
        if isinstance(stdin, bytes):
            fed.write(stdin)
            fed.seek(0)
        child = os.fork()
        if child == 0:
            try:
                source = fed.fileno() if isinstance(stdin, bytes) else os.open(stdin, os.O_RDONLY)
                os.dup2(source, 0)
                os.dup2(writing[0] if stdout is None else stdout, 1)
                os.dup2(writing[1], 2)
                for descriptor in (*reading, *writing):
                    os.close(descriptor)
                sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
                sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), write_through=True)
                sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), write_through=True)
                sys.argv = ["rsttrace", *arguments]
                os.environ.update(environment or {})
                if cwd is not None:
                    os.chdir(cwd)
                if most_bytes is not None:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
                cli.main()
            except SystemExit as ended:
                os._exit(ended.code if isinstance(ended.code, int) else 1)
            except BaseException:
                traceback.print_exc()
            os._exit(70)
    for descriptor in writing:
        os.close(descriptor)
    with ThreadPoolExecutor() as pool:
        out, err = pool.map(_all_of, reading)
    _, status = os.waitpid(child, 0)
    return Done(os.waitstatus_to_exitcode(status), out, err)


def _all_of(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        return file.read()
