"""Prove rsttrace on Debian's kernels, each with its own release's Python and bcc, in QEMU.

    python3 tests/kernels/run.py [--kernel 6.1]… [--full] [--plan PLAN]… [--tests ARGUMENTS]
    python3 tests/kernels/run.py --variant smp4 [--kernel 6.1]…    (see variants.py)

A guest runs every row of test_kinds, over IPv4 or IPv6, under both plans at once (test_plans);
with --full over both, and all other lab tests under each plan, too (for hours); with --tests what
these arguments of pytest choose, under each plan (or that of --plan) by itself. Needs root,
qemu-system-x86_64, mmdebstrap, mke2fs. Guests are built once and kept in $RSTTRACE_CACHE
(~/.cache/rsttrace-kernels), each run's console logs and results in its runs/.
Exit code: 0 if everything passed.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from packages.lock import FOLDER, pins
from rsttrace.render.escape import safe
from tests.kernels import build, document
from tests.kernels.kernels import GUESTS, Guest, select
from tests.kernels.variants import BY_NAME as VARIANTS
from tests.kernels.variants import Variant

CHECKOUT = Path(__file__).resolve().parents[2]
PLANS = ("kprobes", "tracepoints")
LEAN_MINUTES, FULL_MINUTES = 25, 300
BOTH = [f"tests/lab/test_{name}.py" for name in ("plans", "knowledge", "commands")]
"""What every guest runs, under both plans at once; with --full whole."""
LAST_WORDS = 40
"""Lines of its console that a dead guest leaves in our output."""
START_S = 480.0
"""How long loading may take in a guest: emulation makes the compiler 50 times slower."""

RESULT_BYTES = 64 << 20

PARAMETERS = "console=ttyS0 panic=-1 oops=panic loglevel=5 no_timer_check"
"""For every guest's kernel. The last: on a busy host the emulator's timer may miss the few ticks
for which check_timer() waits, and the kernel panics (IO-APIC + timer doesn't work)."""

EMULATOR = re.compile(
    r"RIP: 0010:(___slab_alloc|__slab_free|kmem_cache_alloc|kmem_cache_free|__kmalloc|kfree|"
    r"get_freepointer|this_cpu_cmpxchg16b_emu)"
)
"""Oopses that are QEMU's own (a torn cmpxchg16b in the slab's fast path): these alone are tried
again, once, and the table says so."""

TROUBLE = re.compile(
    r"Kernel panic|Oops|BUG: (?!soft lockup|workqueue lockup)|general protection fault"
    r"|WARNING: CPU|WARNING: \S+:\d+ at "
)
"""The guest's kernel is not well: a failure even if the tests passed. (A lockup only says that the
emulator was starved; a real one ends as a hang.)"""


FETCHING = threading.Lock()
RUNNING: set[subprocess.Popen[bytes]] = set()
"""The emulators, to be ended when we are."""


@dataclass
class Run:
    """One guest's run."""

    guest: Guest
    result: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    retries: int = 0
    built_s: float = 0
    ran_s: float = 0
    console: Path | None = None


def pip(*arguments: str) -> None:
    """Run pip.

    Raises:
        BuildError: it failed.
    """
    build.run([sys.executable, "-m", "pip", "--quiet", *arguments])


def own_wheel(directory: Path) -> Path:
    """Build the checkout's wheel."""
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(CHECKOUT))
    (wheel,) = directory.glob("rsttrace-*.whl")
    return wheel


def wheels(guest: Guest) -> list[Path]:
    """Wheels of what the lock names for the guest's Python, fetched once."""
    text = (FOLDER / "guests.lock").read_text(encoding="utf-8")
    wanted = "".join(str(pin) for pin in pins(text, guest.python))
    key = hashlib.sha256(wanted.encode()).hexdigest()[:12]
    home = build.cache() / f"wheels-{guest.python}-{key}"
    with FETCHING:  # two guests may have the same Python
        if not home.exists():
            fetched = home.with_name(f"{home.name}.part")
            fetched.mkdir(parents=True, exist_ok=True)
            # as it is for the guest: pip would look at markers with the Python that it runs in
            names = fetched / "requirements.txt"
            names.write_text(wanted)
            pip(
                *("download", "--only-binary=:all:", "--python-version", guest.python),
                *("--implementation", "cp", "--no-deps", "--require-hashes"),
                *("--dest", str(fetched), "-r", str(names)),
            )
            fetched.rename(home)
    return sorted(home.glob("*.whl"))


def pack(target: Path, packages: list[Path], request: dict[str, Any]) -> None:
    """The job, a tar that the guest reads straight from its second disk."""
    request_file = target.with_suffix(".json")
    request_file.write_text(json.dumps(request))
    with tarfile.open(target, "w") as tar:
        for package in packages:
            tar.add(package, f"wheels/{package.name}")
        for name in ("tests", "pyproject.toml", "vagrant/provision.sh"):
            tar.add(
                CHECKOUT / name,
                name,
                filter=lambda member: None if "__pycache__" in member.name else member,
            )
        tar.add(request_file, "request.json")
    with target.open("ab") as file:
        file.truncate((target.stat().st_size + 511) // 512 * 512)


def boot(
    image: build.Image,
    job: Path,
    results: Path,
    console: Path,
    minutes: float,
    variant: Variant | None = None,
) -> str | None:
    """Boot a guest and wait for its end: None, or what went wrong."""
    with results.open("wb") as file:
        file.truncate(RESULT_BYTES)

    def disk(path: Path, options: str) -> list[str]:
        return ["-drive", f"file={path},format=raw,if=virtio,{options}"]

    parameters = variant.parameters if variant else ""
    command = [
        *("nice", "-n", "10", "qemu-system-x86_64"),
        *("-accel", "tcg,thread=single", "-cpu", "max,-cx16", "-m", "2048"),
        *("-smp", str(variant.cpus if variant else 2)),
        *("-nodefaults", "-nographic", "-no-reboot", "-serial", f"file:{console}"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
        *("-append", f"{PARAMETERS} {parameters}".strip()),
        *disk(image.root, "snapshot=on,cache=unsafe"),
        *disk(job, "readonly=on"),
        *disk(results, "cache=unsafe"),
    ]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        RUNNING.add(process)
        try:
            words, _ = process.communicate(timeout=minutes * 60)
        except subprocess.TimeoutExpired:
            process.kill()
            return f"no end after {minutes} minutes"
        finally:
            RUNNING.discard(process)
    if process.returncode:
        return f"QEMU ended with {process.returncode}: {words.decode(errors='replace')[-300:]}"
    return None


def read_result(results: Path) -> dict[str, Any]:
    """What the guest left on its third disk; empty if nothing."""
    try:
        with tarfile.open(results) as tar:
            member = tar.extractfile("./result.json")
            assert member is not None
            found: dict[str, Any] = json.load(member)
            return found
    except (tarfile.TarError, KeyError, ValueError):
        return {}


def prove(guest: Guest, own: Path, home: Path, options: argparse.Namespace) -> Run:
    """Build, boot (again, once, if QEMU is to blame), judge."""
    run = Run(guest)
    variant = VARIANTS.get(options.variant)
    request: dict[str, Any] = {
        "start_s": START_S,
        "hide_btf": guest.headers,
        "sessions": sessions(options),
    }
    lean = [name for name, *_ in request["sessions"]] == ["both"] and not options.full
    minutes = options.minutes or (LEAN_MINUTES if lean else FULL_MINUTES)
    try:
        image = build.image(guest, rebuild=options.rebuild)
        packages = [own, *wheels(guest)]
    except build.BuildError as error:
        run.problems.append(f"cannot be built: {error}")
        return run
    run.built_s = image.seconds
    if options.build_only:
        return run
    job, results = home / f"{guest.name}.job.tar", home / f"{guest.name}.results.tar"
    pack(job, packages, request)
    while True:
        run.console = home / f"{guest.name}.console{run.retries or ''}.log"
        started = time.monotonic()
        failure = boot(image, job, results, run.console, minutes, variant)
        run.ran_s = time.monotonic() - started
        console = run.console.read_text(errors="replace")
        if EMULATOR.search(console) and not run.retries:
            run.retries += 1
            continue
        break
    run.result = read_result(results)
    (home / f"{guest.name}.result.json").write_text(json.dumps(run.result, indent=1))
    for leftover in (job, job.with_suffix(".json"), results):
        leftover.unlink()
    judge(run, failure, console, request)
    return run


def sessions(options: argparse.Namespace) -> list[tuple[str, str, list[str]]]:
    """The runs of pytest that a guest does: name, plan, arguments."""
    chosen = options.plan or list(PLANS)
    variant = VARIANTS.get(options.variant)
    arguments = shlex.split(options.tests or "") or (variant and list(variant.tests))
    if arguments:
        return [(plan, plan, arguments) for plan in chosen]
    every = []
    if len(chosen) > 1:
        every.append(("both", "auto", [*BOTH, *(() if options.full else ("-m", "lean"))]))
    if options.full or not every:
        ignored = [f"--ignore={path}" for path in BOTH if every]
        every += [(plan, plan, ["tests/lab", *ignored]) for plan in chosen]
    return every


def judge(run: Run, failure: str | None, console: str, request: dict[str, Any]) -> None:
    """Find everything that is wrong with a run."""
    if failure:
        run.problems.append(failure)
    if not run.result.get("finished"):
        run.problems.append("the guest died before its tests were over; its last words:")
        last = [line for line in console.split("\n") if line.strip()][-LAST_WORDS:]
        run.problems += [f"    {safe(line.rstrip(), 200)}" for line in last]
    trouble = TROUBLE.search(console)
    if trouble:
        run.problems.append(f"its kernel complained: {trouble[0]}")
    if run.result and not run.result["release"].startswith(f"{run.guest.version}."):
        run.problems.append(
            f"{run.guest.release} has Linux {run.result['release']} now: change kernels.py"
        )
    done = run.result.get("sessions", ())
    for session in done:
        name, tests = session["name"], session["tests"]
        bad = [test for test in tests if test["outcome"] == "failed"]
        for test in bad:
            run.problems.append(f"{name}: {test['test']} ({test['when']})")
            run.problems += [f"    {safe(line, 2000)}" for line in gist(test["why"])]
        if session["code"] and not bad:
            run.problems.append(f"{name}: pytest ended with {session['code']}")
        if not any(test["outcome"] == "passed" for test in tests):
            run.problems.append(f"{name}: no test passed")
        for plan in PLANS if name == "both" else ():
            if not plan_facts(run, plan):
                run.problems.append(f"{name}: the plan {plan} did not run")
    if len(done) < len(request["sessions"]):
        run.problems.append("not all tests were run")


def plan_facts(run: Run, plan: str) -> dict[str, Any]:
    """What test_every_hook_attaches recorded of a plan; empty if nothing."""
    for session in run.result.get("sessions", ()):
        for test in session["tests"]:
            facts: dict[str, Any] = test["recorded"].get(f"{plan}-plan", {})
            if facts and test["outcome"] == "passed":
                return facts
    return {}


def gist(why: str) -> list[str]:
    """The telling lines of a failed test: what was there and what should have been."""
    lines = [line.removeprefix("E").strip() for line in why.splitlines() if line[:1] == "E"]
    return [line for line in lines if line and line[0] != "?"][:7] or why.splitlines()[-3:]


def table(runs: list[Run]) -> list[str]:
    """The table, a row for each kernel and plan."""
    rows = [
        [
            *("kernel", "python", "bcc", "plan", "hooks", "kinds", "causes", "start"),
            *("passed", "failed", "skipped", "retries", "built", "ran", "verdict"),
        ]
    ]
    for run in runs:
        done = run.result.get("sessions", ())
        for plan in PLANS:
            facts = plan_facts(run, plan)
            tests = [t for s in done if s["name"] in ("both", plan) for t in s["tests"]]
            if run.result and not tests:
                continue
            proven = {
                tuple(pair)
                for test in tests
                if test["outcome"] == "passed"
                for pair in test["recorded"].get(plan, ())
            }
            counts = [
                str(sum(test["outcome"] == outcome for test in tests))
                for outcome in ("passed", "failed", "skipped")
            ]
            rows.append(
                [
                    run.result.get("release", run.guest.version) + " (no BTF)" * run.guest.headers,
                    run.result.get("python", run.guest.python),
                    *(run.result.get("bcc", "?"), plan, str(len(facts.get("hooks", ())) or "?")),
                    *(str(len({kind for kind, _ in proven})), str(len(proven))),
                    *(f"{facts.get('start_s', '?')}s", *counts, str(run.retries)),
                    *(f"{run.built_s:.0f}s", f"{run.ran_s:.0f}s"),
                    "FAILED" if run.problems else "ok",
                ]
            )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in rows]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument(
        "--kernel", action="append", default=[], help=f"of {', '.join(g.name for g in GUESTS)}"
    )
    parser.add_argument("--full", action="store_true", help="all lab tests under each plan, too")
    parser.add_argument("--plan", action="append", choices=PLANS, help="default: both")
    parser.add_argument(
        "--tests", metavar="ARGUMENTS", help="of the guest's pytest, as a shell takes them apart"
    )
    parser.add_argument("--variant", choices=VARIANTS, help="boot in another way; its own tests")
    parser.add_argument("--minutes", type=float, help="a guest that takes longer hangs")
    parser.add_argument(
        "--jobs", type=int, default=min(2, os.cpu_count() or 1), help="guests at a time"
    )
    parser.add_argument("--build-only", action="store_true", help="build what is missing, and end")
    parser.add_argument("--rebuild", action="store_true", help="build the guests anew")
    options = parser.parse_args()
    try:
        guests = select(options.kernel)
    except KeyError as error:
        parser.error(f"no kernel {error}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # One run at a time: guests are slow enough as it is.
    lock = (build.cache() / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    home = build.cache() / "runs" / time.strftime("%Y%m%d-%H%M%S")
    home.mkdir(parents=True)
    try:
        own = own_wheel(home)
    except build.BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1

    def work(guest: Guest) -> Run:
        run = prove(guest, own, home, options)
        said = "FAILED" if run.problems else "ok"
        text = (
            f"{guest.name} ({guest.release}): built in {run.built_s:.0f} s, ran {run.ran_s:.0f} s"
        )
        print(f"{text}: {said}", file=sys.stderr, flush=True)
        return run

    # The longest first: compiling against headers takes twice as long.
    order = sorted(guests, key=lambda guest: not guest.headers)
    with ThreadPoolExecutor(options.jobs) as pool:
        try:
            done = dict(zip(order, pool.map(work, order)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(RUNNING):
                process.kill()
            raise
    runs = [done[guest] for guest in guests]
    if options.build_only:
        print("\n".join(problem for run in runs for problem in run.problems), file=sys.stderr)
        return int(any(run.problems for run in runs))
    print("\n".join(table(runs)))
    failed = [run for run in runs if run.problems]
    documented = json.loads(document.FACTS.read_text()) if document.FACTS.exists() else {}
    for run in runs:
        facts = document.guest_facts(run.result)
        if facts and document.differences({run.guest.name: facts}, documented):
            print(f"\n{run.guest.name}: not as docs/kernels.md says; `make kernels-doc` updates it")
    for run in failed:
        print(f"\n{run.guest.name}: console log {run.console}")
        for problem in run.problems:
            print(f"  {problem}")
    print(f"\n{len(runs) - len(failed)} kernels passed, {len(failed)} failed; logs: {home}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
