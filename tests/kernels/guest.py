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
import sysconfig
import time
from pathlib import Path
from typing import Any

JOB = Path("/job")
RESULT = JOB / "results/result.json"


def say(text: str) -> None:
    """A line on the console."""
    print(f"[{time.monotonic():7.1f}] {text}", flush=True)


def install() -> None:
    """Install rsttrace and the tests' packages from the wheels that came along, offline."""
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-compile", "--quiet"]
    command += ["--no-warn-script-location", "--ignore-installed"]
    command += ["--root-user-action=ignore"] if sys.version_info >= (3, 11) else []
    if Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists():
        command.append("--break-system-packages")
    command += ["--no-deps", *map(str, sorted((JOB / "wheels").glob("*.whl")))]
    subprocess.run(command, check=True)


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
    install()
    say("installed")
    if request["hide_btf"]:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/sys/kernel/btf"], check=True)
    import bcc

    result["bcc"] = bcc.__version__
    for module in ("nf_reject_ipv4", "nf_reject_ipv6"):  # two kprobes need them
        subprocess.run(["modprobe", module], check=False)
    save()
    for name, plan, arguments in request["sessions"]:
        result["sessions"].append(session(name, plan, request["start_s"], arguments))
        say(f"{name}: exit {result['sessions'][-1]['code']}")
        save()
    result["finished"] = True
    save()


if __name__ == "__main__":
    main()
