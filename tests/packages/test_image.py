"""The OCI image: run from its tar file by runc, with what the DaemonSet gives it and no more."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from packages import image as builder
from rsttrace import __version__

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "docs" / "kubernetes" / "daemonset.yaml"
NETNS = "rsttrace-image-test"
PORT = 5
REFUSED = f"""
import socket
try:
    socket.create_connection(("127.0.0.1", {PORT}))
except ConnectionRefusedError:
    pass
"""


def objects() -> dict[str, Any]:
    """The manifest's objects by kind."""
    return {found["kind"]: found for found in yaml.safe_load_all(MANIFEST.read_text())}


def pod() -> Any:
    """The pod that the DaemonSet starts on every node."""
    return objects()["DaemonSet"]["spec"]["template"]["spec"]


CAPABILITIES = {
    **{"DAC_READ_SEARCH": 2, "NET_ADMIN": 12, "NET_RAW": 13, "SYS_PTRACE": 19, "SYS_ADMIN": 21},
    **{"SYS_RESOURCE": 24, "PERFMON": 38, "BPF": 39, "SETGID": 6, "SETUID": 7, "SETPCAP": 8},
}
"""Their numbers (include/uapi/linux/capability.h)."""


def is_ours(name: str) -> bool:
    """Whether this machine can give that capability: some sandboxes lack one or the other."""
    bounding = int(Path("/proc/self/status").read_text().split("CapBnd:")[1].split()[0], 16)
    return bool(bounding >> CAPABILITIES[name] & 1)


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
def test_the_manifest_is_what_kubernetes_takes(version: str) -> None:
    assert {*objects()} == {"Namespace", "DaemonSet"}
    for found in objects().values():
        kubernetes_validate.validate(found, version, strict=True)
    wrong = objects()["DaemonSet"]
    wrong["spec"]["template"]["spec"]["hostPid"] = True  # it is hostPID
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, version, strict=True)


def test_the_manifest_names_this_version() -> None:
    assert pod()["containers"][0]["image"] == f"rsttrace:{__version__}"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, deb: Path) -> Path:
    return builder.build(tmp_path_factory.mktemp("image") / "build", deb)


@pytest.fixture(scope="module")
def bundle(archive: Path) -> Iterator[Path]:
    """The image as a runtime unpacks it from its tar file."""
    with tempfile.TemporaryDirectory(prefix="rsttrace-image-", dir="/var/tmp") as name:
        folder = Path(name)
        with tarfile.open(archive) as tar:
            tar.extractall(folder / "oci")
        subprocess.run(
            ["umoci", "unpack", "--image", f"{folder}/oci:{__version__}", str(folder / "bundle")],
            check=True,
        )
        yield folder / "bundle"


def test_nothing_in_it_tells_where_it_was_built(bundle: Path) -> None:
    root = bundle / "rootfs"
    settings = {path.name for path in (root / "etc" / "apt").rglob("*") if path.is_file()}
    assert settings <= {"70debconf"}  # debconf's own
    assert not (root / "etc" / "resolv.conf").exists()
    assert [*(root / "var" / "log").iterdir()] == []
    assert (root / "usr/share/doc/scapy").exists() is False
    assert (root / "usr/share/doc/rsttrace/copyright").exists()


def configure(bundle: Path, scratch: Path, arguments: list[str]) -> None:
    """Write the bundle's config.json as a kubelet's runtime would for the manifest's pod.

    Capabilities, read-only root, privileges, namespaces and volumes are the manifest's. The
    runtime's own seccomp profile is not here.
    """
    spec = json.loads((bundle / "config.json").read_text())
    container = pod()["containers"][0]
    security = container["securityContext"]
    held = [f"CAP_{name}" for name in security["capabilities"]["add"] if is_ours(name)]
    assert security["capabilities"]["drop"] == ["ALL"]
    spec["process"].update(
        terminal=False,
        args=["/usr/bin/rsttrace", *arguments],
        user={"uid": security["runAsUser"], "gid": 0},
        noNewPrivileges=not security["allowPrivilegeEscalation"],
        capabilities=dict.fromkeys(("bounding", "effective", "permitted"), held),
    )
    spec["root"]["readonly"] = security["readOnlyRootFilesystem"]
    shared = {"pid": pod()["hostPID"], "network": pod()["hostNetwork"], "user": True}
    spec["linux"]["namespaces"] = [
        found for found in spec["linux"]["namespaces"] if not shared.get(found["type"])
    ]
    for key in ("uidMappings", "gidMappings", "resources"):
        spec["linux"].pop(key, None)
    for mount in spec["mounts"]:  # as many runtimes do it, for versions 1 and 2 alike
        if mount["type"] == "cgroup":
            mount.update(type="bind", source=mount["destination"], options=["rbind", "ro"])
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    for mount in container["volumeMounts"]:
        volume = volumes[mount["name"]]
        if "hostPath" in volume:
            source = Path(volume["hostPath"]["path"])
        else:
            source = scratch / volume["name"]
        source.mkdir(exist_ok=True, parents=True)
        options = ["rbind", "ro" if mount.get("readOnly") else "rw"]
        options += ["rslave"] if mount.get("mountPropagation") == "HostToContainer" else []
        spec["mounts"] = [one for one in spec["mounts"] if one["destination"] != mount["mountPath"]]
        spec["mounts"].append(
            {"destination": mount["mountPath"], "source": str(source), "type": "bind",
             "options": options}
        )  # fmt: skip
    (bundle / "config.json").write_text(json.dumps(spec))


@contextlib.contextmanager
def started(bundle: Path, scratch: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    configure(bundle, scratch, [*arguments])
    name = f"rsttrace-image-test-{arguments[0]}"
    child = subprocess.Popen(
        ["runc", "run", f"--bundle={bundle}", name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            subprocess.run(["runc", "delete", "--force", name], check=False)
            child.kill()
        child.communicate()


def test_doctor_is_content_with_what_the_manifest_gives(bundle: Path, tmp_path: Path) -> None:
    with started(bundle, tmp_path, "doctor") as child:
        said, errors = child.communicate(timeout=120)
    assert child.returncode == 0, said + errors
    assert "tracing works here" in said
    assert "enough capabilities" in said or "root" in said


@pytest.fixture
def netns() -> Iterator[str]:
    """A namespace of the node, as a pod has one."""
    subprocess.run(["ip", "netns", "add", NETNS], check=True)
    try:
        subprocess.run(["ip", "-n", NETNS, "link", "set", "lo", "up"], check=True)
        yield NETNS
    finally:
        subprocess.run(["ip", "netns", "delete", NETNS], check=True)


def test_a_reset_in_a_pod_is_seen_with_its_process(
    bundle: Path, tmp_path: Path, netns: str
) -> None:
    options = ["trace", "--output", "json", "--count", "2", "--duration", "60"]
    with started(bundle, tmp_path, *options, "--netns", netns, "--port", str(PORT)) as child:
        assert child.stderr is not None
        heard = []
        for line in child.stderr:
            heard.append(line)
            if line.startswith("tracing resets"):
                break
        else:
            pytest.fail("".join(heard))
        subprocess.run(
            ["ip", "netns", "exec", netns, "python3", "-c", REFUSED], check=True, timeout=30
        )
        said, rest = child.communicate(timeout=90)
    assert "warning" not in rest, rest  # it may become nobody, and its helper works
    entries = [json.loads(line) for line in said.splitlines()]
    entries = [entry for entry in entries if "kind" in entry]
    assert {entry["kind"] for entry in entries} == {"sent-passive", "received-accepted"}
    assert {entry["netns_name"] for entry in entries} == {netns}
    received = next(entry for entry in entries if entry["direction"] == "received")
    assert received["process"]["comm"] == "python3"
    assert [*(tmp_path / "cache").iterdir()], "the compiled program is kept in the volume"


def test_it_is_the_same_when_it_is_built_again(archive: Path, deb: Path, tmp_path: Path) -> None:
    again = builder.build(tmp_path / "elsewhere", deb)
    assert again.read_bytes() == archive.read_bytes()
    shutil.rmtree(again.parent)
