"""What runs inside a guest: install the wheel, run the lab tests.

Started by guest.sh in /job, with the guest's own Python and nothing but the standard library;
writes results/result.json anew after every step, so that a guest that dies has told what it could.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

JOB = Path("/job")
RESULT = JOB / "results/result.json"


def say(text: str) -> None:
    """A line on the console."""
    print(f"[{time.monotonic():7.1f}] {text}", flush=True)


def provision(*words: str) -> None:
    """Run a step of vagrant/provision.sh."""
    subprocess.run(["sh", "vagrant/provision.sh", *words], check=True, cwd=JOB)


def session(name: str, plan: str, start_s: float, arguments: list[str]) -> dict[str, Any]:
    """One run of pytest under a plan."""
    report = JOB / "results" / f"tests-{name}.jsonl"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-v", "--tb=short", "--color=no"),
            *("-p", "tests.kernels.plugin", "-p", "no:cacheprovider", *arguments),
        ],
        check=False,
        env={
            **os.environ,
            "CI": "1",
            "COLUMNS": "100",
            "RSTTRACE_LAB_PLAN": plan,
            "RSTTRACE_LAB_START": str(start_s),
            "RSTTRACE_LAB_DEADLINE": "40",
            "RSTTRACE_KERNELS_REPORT": str(report),
        },
    )
    tests = [json.loads(line) for line in report.open()] if report.exists() else []
    return {"name": name, "code": done.returncode, "tests": tests}


def main() -> None:
    """Run the request that came with the job."""
    request = json.loads((JOB / "request.json").read_text())
    result: dict[str, Any] = {
        "release": platform.release(),
        "python": platform.python_version(),
        "sessions": [],
        "finished": False,
    }

    def save() -> None:
        RESULT.write_text(json.dumps(result))

    say(f"Linux {result['release']}, Python {result['python']}")
    wheels = map(str, sorted((JOB / "wheels").glob("*.whl")))
    provision("install", "--no-index", "--no-deps", *wheels)
    say("installed")
    if request["hide_btf"]:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/sys/kernel/btf"], check=True)
    import bcc

    result["bcc"] = bcc.__version__
    provision("modules")
    hosts = Path("/etc/hosts")  # bullseye's bootstrap makes none
    if not hosts.exists():
        hosts.write_text("127.0.0.1 localhost\n")
    save()
    for name, plan, arguments in request["sessions"]:
        result["sessions"].append(session(name, plan, request["start_s"], arguments))
        say(f"{name}: exit {result['sessions'][-1]['code']}")
        save()
    result["finished"] = True
    save()


if __name__ == "__main__":
    main()
