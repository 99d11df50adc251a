"""The program as a user runs it: starting, ending, filters, viewpoints, verdicts from evidence."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
from scapy.utils import PcapNgReader

from rsttrace.demo import forger, web
from rsttrace.demo.lab import Lab
from rsttrace.render.schema import schema_text
from tests.lab.harness import (
    ADDRESSES,
    DEADLINE_S,
    PLAN,
    Fence,
    Tracer,
    bpf_programs,
    expect_reset,
    knows,
    linger_zero,
    pair,
    poll_until,
    server_address,
    tracing,
)

V4, V6 = socket.AF_INET, socket.AF_INET6
RSTTRACE = [sys.executable, "-m", "rsttrace"]


def refuse(lab: Lab, family: int = V4, port: int = 7999, times: int = 1) -> None:
    """Refused connections from client to server: one reset each."""
    for _ in range(times):
        with lab.inside("client"), socket.socket(family) as sock:
            assert sock.connect_ex((server_address("server", family), port)) != 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ends_cleanly_and_leaves_nothing(number: int, routed: Lab) -> None:
    before = bpf_programs()
    tracer = Tracer("--netns", routed.name("client"), "--summary")
    ours = bpf_programs() - before
    assert ours
    refuse(routed, times=3)
    tracer.collect(routed.inode("client"), 3)
    assert tracer.stop(number) == 0
    assert tracer.entries[-1]["totals"]["shown"] == 3
    poll_until(lambda: not ours & bpf_programs(), "the programs to be gone")


def test_killed_leaves_nothing() -> None:
    before = bpf_programs()
    tracer = Tracer()
    ours = bpf_programs() - before
    assert ours
    assert tracer.stop(signal.SIGKILL) == -signal.SIGKILL
    poll_until(lambda: not ours & bpf_programs(), "the programs to be gone")


@pytest.mark.parametrize("wrong", [("--user", "no such user"), ("--fingerprints", "/no/file")])
def test_what_is_loading_ends_with_what_cannot_begin(wrong: tuple[str, str]) -> None:
    """The kernel side is being loaded already when this is found out."""
    before = bpf_programs()
    done = subprocess.run(
        [*RSTTRACE, *wrong], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not [pid for pid, words in commands() if "rsttrace.kernel.child" in words]
    poll_until(lambda: not bpf_programs() - before, "the programs to be gone")


def commands() -> Iterator[tuple[int, list[str]]]:
    """The processes of this machine, with the words of their command lines."""
    for found in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield int(found.parent.name), found.read_text(errors="replace").split("\0")


def test_closed_pipe_ends_quietly(routed: Lab) -> None:
    """As in `rsttrace | head -1`: no traceback, exit 0, though nothing more happens."""
    with tracing("-o", "json", "--netns", routed.name("client")) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        refuse(routed)
        assert json.loads(process.stdout.readline())["id"] == 1
        process.stdout.close()
        assert process.wait(DEADLINE_S) == 0
        assert "Traceback" not in process.stderr.read()


def test_count_and_duration_end_it(routed: Lab) -> None:
    tracer = Tracer("--netns", routed.name("client"), "--count", "5")
    refuse(routed, times=7)
    assert tracer.process.wait(DEADLINE_S) == 0
    tracer.stop()
    assert len(tracer.entries) == 5
    short = Tracer("--duration", "0.3", "--summary")
    assert short.process.wait(DEADLINE_S) == 0
    short.stop()
    assert short.entries[-1]["totals"]["duration_s"] >= 0.3


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--host", "10.71.2.2"), {4: 6}),
        (("--host", "fd71:2::2"), {6: 6}),
        (("--host", "10.71.9.9"), {}),
        (("--net", "10.71.2.0/24"), {4: 6}),
        (("--net", "fd71:2::/64"), {6: 6}),
        (("--net", "10.71.0.0/16", "--net", "fd71::/16"), {4: 6, 6: 6}),
        (("--port", "7998"), {4: 6, 6: 6}),
        (("--port", "1"), {}),
        (("--kind", "sent"), {4: 3, 6: 3}),
        (("--kind", "received-accepted"), {4: 3, 6: 3}),
        (("--origin", "local"), {4: 3, 6: 3}),
        (("--iface", "nosuch"), {}),
        (("--iface", "eth0"), {4: 6, 6: 6}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_filters(
    options: tuple[str, ...], expected: dict[int, int], routed: Lab, fence: Fence
) -> None:
    """3 refused connections for each family: 12 entries; what is not shown is counted."""
    del fence
    netns = [item for role in ("client", "server") for item in ("--netns", routed.name(role))]
    tracer = Tracer(*options, *netns, "--summary")
    for family in (V4, V6):
        refuse(routed, family, 7998, times=3)
    everything = sum(expected.values())
    tracer.wait_for(lambda: len(tracer.entries) >= everything, "the entries")
    assert tracer.stop() == 0
    *entries, last = tracer.entries
    assert Counter(entry["family"] for entry in entries) == expected
    assert last["totals"]["shown"] == everything
    assert last["totals"]["not_shown"]["filtered"] >= 12 - everything


def test_an_interface_that_is_not_there_is_said(routed: Lab) -> None:
    netns = ("--netns", routed.name("client"))
    tracer = Tracer(*netns, "--iface", "nosuch\x1b", "--iface", "eth0", "--iface", "lo")
    tracer.wait_for(lambda: "warning" in tracer.status, "the warning")
    assert tracer.stop() == 0
    (line,) = [line for line in tracer.status.splitlines() if "warning" in line]
    assert "there is no interface 'nosuch\\x1b'" in line


def test_netns_filter_is_exact(routed: Lab) -> None:
    tracer = Tracer("--netns", str(routed.inode("client")))
    refuse(routed, times=5)
    tracer.collect(routed.inode("client"), 5)
    assert tracer.stop() == 0
    assert {entry["netns"] for entry in tracer.entries} == {routed.inode("client")}


def incident(lab: Lab, slow_start: int = 49) -> None:
    """The server looks 17 routers away; the router forges when it sees the keyword."""
    lab.sysctl("server", net__ipv4__ip_default_ttl=slow_start)
    lab.spawn("router", [sys.executable, forger.__file__, "GET /use"], ready="forging")
    lab.nft(
        "router",
        "table ip t {\nchain f {\ntype filter hook forward priority 0\n"
        "tcp dport 80 @th,256,64 0x474554202f757365 drop\n}\n}\n",
    )
    lab.spawn("server", [sys.executable, web.__file__, "serve", "10.71.2.2"], ready="serving")


def test_the_incident_from_the_client_s_viewpoint(routed: Lab) -> None:
    """Nothing but evidence: the copied IP ID, the hop distance, the copied window."""
    incident(routed)
    tracer = Tracer("--viewpoint", "netns", "--netns", routed.name("client"), "--explain")
    said = routed.exec("client", [sys.executable, web.__file__, "get", "10.71.2.2", "/", "/use"])
    assert "reset by peer" in said
    entry = tracer.collect(routed.inode("client"), 1)[0]
    assert tracer.stop() == 0
    assert entry["origin"] == "forged"
    assert entry["confidence"] >= 0.95
    assert entry["made_here"] is None
    assert entry["ingress"] is None
    assert entry["hops"] == {"rst": 0, "peer": 16}
    rules = {item["rule"]: item for item in entry["evidence"]}
    assert rules["ip-id-ours"]["values"]["ip_id"] == entry["rst"]["ip_id"]
    assert entry["rst"]["ip_id"] in entry["baseline"]["ours_ip_id"]
    (distance,) = [item for item in entry["evidence"] if item["group"] == "distance"]
    assert distance["weight"] > 0
    assert entry["baseline"]["syn_ttl"] == entry["baseline"]["ttl"] == 48
    order = [word.split()[0] for word in entry["baseline"]["syn_options"].split(",")]
    assert order == ["mss", "sackOK", "TS", "nop", "wscale"]
    assert entry["baseline"]["stack"] == "Linux"
    assert entry["process"]["comm"].startswith("python")
    considered = {item["group"] for item in entry["considered"]}
    assert {"distance", "make", "history", "link", "content"} <= considered


def test_the_incident_seen_by_the_node_is_proof(routed: Lab) -> None:
    incident(routed)
    tracer = Tracer("--netns", routed.name("client"))
    routed.exec("client", [sys.executable, web.__file__, "get", "10.71.2.2", "/", "/use"])
    entry = tracer.collect(routed.inode("client"), 1)[0]
    assert tracer.stop() == 0
    assert (entry["origin"], entry["confidence"]) == ("forged", 1.0)
    assert entry["evidence"][0]["rule"] == "made-here"
    assert entry["made_here"]["netns_name"] == routed.name("router")
    assert "python" in entry["made_here"]["comm"]


@pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
@pytest.mark.parametrize("how", ["refused", "unread", "linger"])
def test_honest_resets_are_the_peer_s_by_evidence(how: str, family: int, routed: Lab) -> None:
    """No proof allowed: the evidence alone must say peer, and never forged."""
    tracer = Tracer("--viewpoint", "netns", "--netns", routed.name("client"))
    for _ in range(3):
        with pair(routed, "client", "server", family=family) as (client, accepted):
            if how == "unread":
                client.send(b"data")
                accepted.recv(1)
            else:
                linger_zero(accepted)
            accepted.close()
            expect_reset(client)
    if how == "refused":
        refuse(routed, family, times=2)
    wanted = 5 if how == "refused" else 3
    entries = tracer.collect(routed.inode("client"), wanted)
    assert tracer.stop() == 0
    assert {entry["origin"] for entry in entries} == {"peer"}
    assert all(entry["confidence"] >= 0.9 for entry in entries)


def test_without_baseline_only_the_gateway_itself_is_accused(routed: Lab) -> None:
    """Its TTL has passed no router, though the peer is behind one: that needs no earlier packet."""
    incident(routed)
    tracer = Tracer("--viewpoint", "netns", "--netns", routed.name("client"), "--no-baseline")
    routed.exec("client", [sys.executable, web.__file__, "get", "10.71.2.2", "/", "/use"])
    entry = tracer.collect(routed.inode("client"), 1)[0]
    assert tracer.stop() == 0
    assert entry["origin"] == "forged"
    assert entry["evidence"][0]["rule"] == "ttl-undiminished"
    assert entry["baseline"]["scope"] == "none"


def test_live_json_is_what_the_schema_promises(routed: Lab) -> None:
    """Every kind of line of a live run, against the schema that we print."""
    incident(routed)
    tracer = Tracer("--kind", "all", "--summary", "--explain")
    routed.exec("client", [sys.executable, web.__file__, "get", "10.71.2.2", "/", "/use"])
    for family in (V4, V6):
        refuse(routed, family, times=3)
        with pair(routed, "client", "server", family=family) as (client, accepted):
            linger_zero(client)
            client.close()
            expect_reset(accepted)
    tracer.collect(routed.inode("client"), 9)
    assert tracer.stop() == 0
    validator = jsonschema.Draft202012Validator(json.loads(schema_text()))
    for entry in tracer.entries:
        errors = [error.message for error in validator.iter_errors(entry)]
        assert not errors, (errors, entry)
    assert "totals" in tracer.entries[-1]


def test_hostile_names_stay_harmless(routed: Lab) -> None:
    """A process that calls itself an escape sequence, in text for a terminal."""
    options = ("--netns", routed.name("client"), "--count", "1", "--color", "never")
    with tracing(*options) as process:
        code = (
            "import ctypes,socket;ctypes.CDLL(None).prctl(15,b'\\x1b[2Jx\\n',0,0,0);"
            "socket.socket().connect_ex(('10.71.2.2',7999))"
        )
        routed.exec("client", [sys.executable, "-c", code])
        out, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert "\x1b" not in out
    assert "\\x1b[2Jx\\x0a" in out
    assert len(out.splitlines()) >= 1


def test_unprivileged_gets_one_clear_error() -> None:
    done = subprocess.run(
        [*RSTTRACE], capture_output=True, text=True, check=False, user=65534, cwd="/",
        env={**os.environ, "PYTHONPATH": str(Path(web.__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    assert "needs root" in done.stderr
    assert "sudo" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("shell", "words"),
    [
        ("ulimit -n 20; exec", ("no more than 20 files may be open", "ulimit -n 128")),
        ("exec unshare --user --map-root-user", ("refuses a BPF map", "user namespace")),
        (
            "exec unshare --mount sh -c 'mount -t tmpfs none /proc && exec \"$@\"' sh",
            ("/proc/self/status cannot be read", "mount -t proc"),
        ),
    ],
    ids=["descriptors", "user-namespace", "no-proc"],
)
def test_what_this_process_lacks_is_named(shell: str, words: tuple[str, str]) -> None:
    done = subprocess.run(
        ["sh", "-c", f'{shell} "$@"', "sh", *RSTTRACE, "trace", "--plan", PLAN, "--duration", "1s"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 2, done.stderr
    for word in words:
        assert word in done.stderr


def test_a_soft_limit_is_raised_as_far_as_the_hard_one_allows(routed: Lab) -> None:
    done = subprocess.run(
        ["sh", "-c", 'ulimit -S -n 20; exec "$@"', "sh", *RSTTRACE, "trace", "--plan", PLAN,
         "--netns", routed.name("client"), "--duration", "0.1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "tracing resets" in done.stderr


@pytest.mark.parametrize("secrets", [True, False])
def test_what_may_hold_secrets_is_for_its_owner_alone(
    routed: Lab, tmp_path: Path, secrets: bool
) -> None:
    """Also where a file that everybody may read was there before."""
    out = tmp_path / "x.pcapng"
    out.touch(mode=0o644)
    payload = ["--payload", "16"] if secrets else []
    options = ["--netns", routed.name("client"), "--count", "1", "-w", str(out), *payload]
    with tracing(*options) as process:
        refuse(routed)
        process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert out.stat().st_size > 0
    assert out.stat().st_mode & 0o777 == (0o600 if secrets else 0o644)


def test_doctor() -> None:
    done = subprocess.run([*RSTTRACE, "doctor", "-o", "json"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    jsonschema.Draft202012Validator(json.loads(schema_text())).validate(made)
    doctor = made["doctor"]
    assert doctor["works"] is True
    assert doctor["source"] == ("btf" if os.path.exists("/sys/kernel/btf/vmlinux") else "headers")
    assert doctor["knows"] == knows()
    assert all(hook["attached"] for hook in doctor["hooks"])
    text = subprocess.run(
        [*RSTTRACE, "doctor", "--plan", "tracepoints"], capture_output=True, text=True, check=False
    )
    assert text.returncode == 0
    assert re.search(r"tracing works here \(plan: tracepoints; hooks: (\d+) of \1\)", text.stdout)


def test_the_full_plan_compiles_and_verifies_here(routed: Lab) -> None:
    """The kprobe programs cannot attach without kprobes; the verifier accepts them all the same."""
    del routed
    code = """
import json, sys, tempfile
from pathlib import Path
from rsttrace.kernel import hooks, typed
from rsttrace.kernel.child import load_untyped
from rsttrace.kernel.facts import Facts
from rsttrace.kernel.program import compile_program, config_header, texts
from rsttrace.kernel.protocol import Request
from rsttrace.model import Kind
with tempfile.TemporaryDirectory() as name:
    facts = Facts()
    request = Request(kinds=tuple(k.value for k in Kind), flows=64, payload=64)
    for direct in {facts.btf is not None, False}:
        text = config_header(
            request, facts, hooks.Plan.KPROBES, follows=True, direct=direct
        )
        program = compile_program(texts(facts, text), facts, Path(name))
        for hook in hooks.for_plan(hooks.Plan.KPROBES, facts.knows()):
            if direct and hook.target in hooks.PACKET_LAYER:
                code = program.code(hook.program)
                typed.load(code, hook.program, hook.target, facts.btf)
            else:
                load_untyped(program, hook, facts.btf if direct else None)
            print(hook.program)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(set(done.stdout.split())) >= 10


def test_programs_that_are_refused_as_they_are_read_by_helpers(routed: Lab) -> None:
    """A kernel that takes no such loads in programs whose arguments have no types loses no hook."""
    del routed
    code = """
import sys
from rsttrace.kernel import child, typed
from rsttrace.kernel.facts import Facts
from rsttrace.kernel.protocol import Request
from rsttrace.model import Kind
if Facts().btf is None:
    sys.exit("no BTF")
def refuse(code, name, *rest):
    print("refused", name)
    raise OSError("unknown func")
typed.load_untyped = refuse
kinds = tuple(kind.value for kind in Kind)
report, _ = child.load(Request(kinds=kinds, flows=64, plan="tracepoints"))
print(*[hook.target for hook in report.hooks if hook.attached])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if "no BTF" in done.stderr:
        pytest.skip("this kernel has no BTF: everything is read by helpers")
    assert done.returncode == 0, done.stderr
    *refused, attached = done.stdout.splitlines()
    assert "refused rt_kfree_skb" in refused
    assert {"netif_receive_skb", "net_dev_queue", "kfree_skb"} <= set(attached.split())


def test_demo_shows_what_it_promises_and_cleans_up() -> None:
    done = subprocess.run([*RSTTRACE, "demo"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r" IN  FORGED \d\d%", done.stdout)) == 4
    turned = "by a box that turns our own packet around, 1 hop away (the server is 17 hops away)"
    assert turned in done.stdout
    assert "by a firewall's REJECT rule, 1 hop away" in done.stdout
    assert "FUJIAN STAR TERMINAL" in done.stdout
    honest = done.stdout.split("# an honest reset", 1)[1]
    assert "FORGED" not in honest
    assert len(re.findall(r" IN  PEER \d\d%", honest)) == 3
    left = [name for name in os.listdir("/run/netns") if name.startswith("rsttrace-")]
    assert left == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_cleans_up(number: int) -> None:
    with subprocess.Popen(
        [*RSTTRACE, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("#   the client sees"):
                break
        process.send_signal(number)
        process.stdout.read()
        assert process.wait(DEADLINE_S) in (0, 130)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
        assert not [n for n in os.listdir("/run/netns") if n.startswith(f"rsttrace-{process.pid}-")]


def test_addresses_of_the_lab_are_private() -> None:
    """Test traffic stays inside namespaces made here, on private addresses."""
    assert all(v4.startswith("10.") and v6.startswith("fd") for v4, v6 in ADDRESSES.values())


def test_a_full_disk_ends_the_writing_not_the_trace(routed: Lab, tmp_path: Path) -> None:
    """A disk of 16 kB: whole packets, one warning, and every entry is shown."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "rsttrace", tmp_path], check=True)
    try:
        out = tmp_path / "out.pcapng"
        tracer = Tracer("--netns", routed.name("client"), "-w", str(out))
        assert not out.exists()
        refuse(routed, times=40)
        tracer.collect(routed.inode("client"), 40)
        assert tracer.stop() == 1
        warnings = [line for line in tracer.status.splitlines() if line.startswith("warning")]
        assert len(warnings) == 1
        assert "No space left on device" in warnings[0]
        with PcapNgReader(str(out)) as reader:
            assert 2 < len(list(reader)) < 80
        assert [path.name for path in tmp_path.iterdir()] == ["out.pcapng"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_node_that_sees_both_ends_writes_a_packet_once(routed: Lab, tmp_path: Path) -> None:
    out = tmp_path / "out.pcapng"
    ends = [item for role in ("client", "server") for item in ("--netns", routed.name(role))]
    tracer = Tracer(*ends, "-w", str(out))
    refuse(routed)
    for role in ("client", "server"):
        tracer.collect(routed.inode(role), 1)
    assert tracer.stop() == 0
    with PcapNgReader(str(out)) as reader:
        packets = list(reader)
    comments = [packet.comments[0].decode() for packet in packets]
    assert sum("most likely answers" in text for text in comments) == 1  # the SYN
    assert sum(text.startswith("rsttrace #") for text in comments) == 2
    assert [packet.time for packet in packets] == sorted(packet.time for packet in packets)


def test_filters_by_process(routed: Lab) -> None:
    """Two programs are refused; one is asked for, by its name and by its number."""
    client = ("--netns", routed.name("client"), "--no-aggregate")
    tracer = Tracer(*client, "--comm", "wanted", "--summary")
    for name in ("other", "wanted", "other"):
        code = (
            f"import ctypes,socket;ctypes.CDLL(None).prctl(15,b'{name}',0,0,0);"
            "socket.socket().connect_ex(('10.71.2.2',7999))"
        )
        routed.exec("client", [sys.executable, "-c", code])
    tracer.collect(routed.inode("client"), 1)
    assert tracer.stop() == 0
    entry, last = tracer.entries
    assert entry["process"]["comm"] == "wanted"
    assert last["totals"]["not_shown"]["filtered"] >= 2
    tracer = Tracer(*client, "--pid", str(os.getpid()), "--pid", "4194304")
    refuse(routed)
    (entry,) = tracer.collect(routed.inode("client"), 1)
    assert tracer.stop() == 0
    assert entry["process"]["pid"] == os.getpid()
