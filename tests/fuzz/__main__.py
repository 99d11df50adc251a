"""``make fuzz``: each target in a process of its own, guided by what it covers (atheris).

What is found is written to the folder `found`, by target: mend it, and keep the file, for
tests/unit/test_fuzz_found.py plays it from then on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

FOUND = Path(__file__).parent / "found"
SLOWEST_S, MEMORY_MB, LONGEST = 10, 2048, 16384


def fuzz(name: str, corpus: Path, seconds: int) -> None:
    """Fuzz one target in this process; libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["rsttrace"]):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    for number, data in enumerate(target.seeds()):
        (corpus / str(number)).write_bytes(data)
    found = FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    atheris.Setup(
        [
            sys.argv[0],
            str(corpus),
            *([str(found)] if any(found.iterdir()) else []),
            f"-max_total_time={seconds}",
            f"-timeout={SLOWEST_S}",
            f"-rss_limit_mb={MEMORY_MB}",
            f"-max_len={LONGEST}",
            f"-artifact_prefix={found}/",
            "-print_final_stats=1",
        ],
        target.run,
    )
    atheris.Fuzz()


def main() -> int:
    """The exit code: 0 if nothing was found."""
    if sys.argv[1:2] == ["--one"]:  # nothing of ours is imported yet: it is to be instrumented
        name, corpus, seconds = sys.argv[2:]
        fuzz(name, Path(corpus), int(seconds))
        return 0
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=300, help="for all targets together")
    parser.add_argument("--target", action="append", choices=sorted(TARGETS))
    options = parser.parse_args()
    names = options.target or list(TARGETS)
    each = max(1, options.seconds // len(names))
    failed = []
    for name in names:
        with tempfile.TemporaryDirectory() as corpus:
            done = subprocess.run(
                [sys.executable, "-m", "tests.fuzz", "--one", name, corpus, str(each)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
        text = done.stdout.decode(errors="replace")
        runs = [
            line.split()[-1] for line in text.splitlines() if "number_of_executed_units" in line
        ]
        print(f"{name:14} {each} s, {runs[-1] if runs else '?'} inputs: ", end="")
        print("nothing found" if done.returncode == 0 else f"FOUND (exit code {done.returncode})")
        if done.returncode:
            failed.append(name)
            print(text[-3000:])
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
