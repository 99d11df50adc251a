"""What runs inside a guest: install the wheel, trace under each plan, run the lab tests.

Started by guest.sh in /job, with the guest's own Python and nothing but the standard library;
writes results/result.json anew after every step, so that a guest that dies has told what it could.
"""

from __future__ import annotations

import json
import os
import platform
import re
import socket
import subprocess
import sys
import sysconfig
import time
import traceback
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


def smoke(plan: str, start_s: float) -> dict[str, Any]:
    """Trace a refused connection and a linger reset, seen at both ends."""
    from rsttrace.demo.lab import Lab
    from tests.lab import harness

    harness.DEADLINE_S = start_s
    result: dict[str, Any] = {"plan": plan}
    started = time.monotonic()
    tracer = harness.Tracer("--plan", plan, "--kind", "all", wait=False)
    try:
        tracer.wait_for(lambda: "unseen with this plan" in tracer.status, "the tracer to be armed")
        result["start_s"] = round(time.monotonic() - started, 1)
        hooks = re.search(r"plan: (\w+); hooks: (\d+) of (\d+)", tracer.status)
        assert hooks is not None, tracer.status
        result["plan_run"], result["hooks"] = hooks[1], f"{hooks[2]}/{hooks[3]}"
        result["missing"] = [line for line in tracer.status.splitlines() if "not attached" in line]
        with Lab("rstsmoke") as lab:
            lab.add("client", "server")
            lab.link("client", "eth0", "server", "eth0")
            for role in ("client", "server"):
                v4, v6 = harness.ADDRESSES[role]
                lab.addresses(role, "eth0", f"{v4}/8", f"{v6}/16")
            for family in (socket.AF_INET, socket.AF_INET6):
                with lab.inside("client"), socket.socket(family) as sock:
                    sock.settimeout(start_s)
                    assert sock.connect_ex((harness.server_address("server", family), 7999))
                with harness.pair(lab, "client", "server", family=family) as (client, accepted):
                    harness.linger_zero(client)
                    client.close()
                    harness.expect_reset(accepted)
            server = tracer.collect(lab.inode("server"), 4)
            client_side = tracer.collect(lab.inode("client"), 4)
        result["kinds"] = {
            "server": [f"{e['kind']}/{e['cause']['name']}" for e in server],
            "client": [f"{e['kind']}/{e['cause']['name']}" for e in client_side],
        }
        assert [e["kind"] for e in server] == ["sent-passive", "received-accepted"] * 2, result
        assert [e["kind"] for e in client_side] == ["received-accepted", "sent-active"] * 2, result
        result["passed"] = True
    except Exception:
        result["passed"] = False
        result["why"] = traceback.format_exc()[-6000:]
    finally:
        result["code"] = tracer.stop()
    result["status"] = tracer.status
    return result


def lab_tests(plan: str, start_s: float, arguments: list[str]) -> dict[str, Any]:
    """The lab tests of the checkout under a plan."""
    report = JOB / "results" / f"tests-{plan}.jsonl"
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
    return {"plan": plan, "code": done.returncode, "tests": tests}


def main() -> None:
    """Run the request that came with the job."""
    request = json.loads((JOB / "request.json").read_text())
    result: dict[str, Any] = {
        "release": platform.release(),
        "python": platform.python_version(),
        "smoke": [],
        "lab": [],
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
    for plan in request["plans"]:
        result["smoke"].append(smoke(plan, request["start_s"]))
        say(f"smoke {plan}: {json.dumps(result['smoke'][-1])}")
        save()
    for plan in request["plans"] if request["tests"] else ():
        result["lab"].append(lab_tests(plan, request["start_s"], request["tests"]))
        say(f"lab {plan}: exit {result['lab'][-1]['code']}")
        save()
    result["finished"] = True
    save()


if __name__ == "__main__":
    main()
