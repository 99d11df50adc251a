"""What a package is made of, as a CycloneDX document (ECMA-424): the SBOM that each one carries.

It is written from what was really put there: the distributions that pip laid out, each with the
hash of the file that it came from, and in the image what its dpkg has on its books. Built again it
is the same, to the byte.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any, NamedTuple

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType, Pedigree
from cyclonedx.model.component_evidence import ComponentEvidence, Occurrence
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from rsttrace import __version__

NAME = "sbom.cdx.json"
IMAGE = "image.cdx.json"
"""Beside the program: `rsttrace --version` says where that is."""

SPACE = uuid.UUID("c1b2b7de-3a39-4b51-93a5-4ff4f2dd6d6c")
"""Of serial numbers that follow from what is in the document."""


class Carried(NamedTuple):
    """A distribution that was laid out: its metadata, its licences' text, where it is, its origin.

    `places` are its files and folders, relative to the folder of all; `sha256` is of its wheel.
    """

    metadata: Message
    licence: str
    places: tuple[str, ...]
    sha256: str
    left_out: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name as the registry has it."""
        return str(self.metadata["Name"]).lower().replace("_", "-")


def carried(information: Path, hashes: dict[str, str], left_out: Iterable[str]) -> Carried:
    """What a ``.dist-info`` folder says; `hashes`: of each file that was installed, by name."""
    metadata = Parser().parsestr((information / "METADATA").read_text(encoding="utf-8"))
    files = sorted(
        path
        for path in information.rglob("*")
        if path.is_file() and path.name.upper().startswith(("LICEN", "COPYING"))
    )
    lines = (information / "RECORD").read_text(encoding="utf-8").splitlines()
    tops = {line.split(",")[0].split("/")[0] for line in lines} - {"..", information.name}
    name = str(metadata["Name"]).lower().replace("_", "-")
    return Carried(
        metadata,
        "\n".join(path.read_text(encoding="utf-8") for path in files),
        tuple(sorted(tops)),
        hashes[name],
        tuple(left_out),
    )


def installed_hashes(report: Path) -> dict[str, str]:
    """The SHA-256 of each wheel that pip installed, by name (its ``--report``)."""
    found = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {
        str(each["metadata"]["name"]).lower().replace("_", "-"): str(
            each["download_info"]["archive_info"]["hashes"]["sha256"]
        )
        for each in found
    }


def licence(metadata: Message, text: str) -> str:
    """The licence as SPDX has it: as it is declared, else by its class and its text."""
    if metadata["License-Expression"]:
        return str(metadata["License-Expression"])
    declared = " ".join([*metadata.get_all("Classifier", []), str(metadata["License"] or "")])
    if "MIT" in declared:
        return "MIT"
    if "BSD" in declared:
        return "BSD-3-Clause" if "Neither the name" in " ".join(text.split()) else "BSD-2-Clause"
    raise ValueError(f"{metadata['Name']}: which licence is {declared!r}?")


def _library(each: Carried) -> Component:
    url = PackageURL("pypi", name=each.name, version=str(each.metadata["Version"]))
    notes = f"left out: {', '.join(each.left_out)}" if each.left_out else None
    return Component(
        type=ComponentType.LIBRARY,
        name=str(each.metadata["Name"]),
        version=str(each.metadata["Version"]),
        bom_ref=str(url),
        purl=url,
        licenses=[LicenseFactory().make_from_string(licence(each.metadata, each.licence))],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=each.sha256)],
        evidence=ComponentEvidence(
            occurrences=[Occurrence(bom_ref=f"{url}#{p}", location=p) for p in each.places]
        ),
        pedigree=Pedigree(notes=notes) if notes else None,
    )


def _debian(status: str, release: str) -> Iterator[Component]:
    """The packages of a dpkg status file."""
    for stanza in filter(str.strip, status.split("\n\n")):
        fields = Parser().parsestr(f"{stanza.strip()}\n\n")
        if fields["Package"] == "rsttrace" or "installed" not in str(fields["Status"]).split():
            continue
        url = PackageURL(
            "deb", "debian", fields["Package"], fields["Version"],
            {"arch": str(fields["Architecture"]), "distro": release},
        )  # fmt: skip
        yield Component(
            type=ComponentType.LIBRARY,
            name=str(fields["Package"]),
            version=str(fields["Version"]),
            bom_ref=str(url),
            purl=url,
        )


def document(when: int, libraries: Iterable[Component]) -> str:
    """The document of rsttrace with these; `when`: its time, in seconds since 1970."""
    url = PackageURL("generic", name="rsttrace", version=__version__)
    ours = Component(
        type=ComponentType.APPLICATION,
        name="rsttrace",
        version=__version__,
        bom_ref=str(url),
        purl=url,
        licenses=[LicenseFactory().make_from_string("GPL-2.0-or-later")],
        evidence=ComponentEvidence(
            occurrences=[Occurrence(bom_ref=f"{url}#rsttrace", location="rsttrace")]
        ),
    )
    found = sorted(libraries, key=lambda each: str(each.purl))
    named = [f"{each.purl} {next(iter(each.hashes)).content if each.hashes else ''}"
             for each in found]  # fmt: skip
    bom = Bom(
        metadata=BomMetaData(
            component=ours, timestamp=datetime.fromtimestamp(when, tz=timezone.utc)
        ),
        components=found,
        serial_number=uuid.uuid5(SPACE, "\n".join([f"{url} {when}", *named])),
    )
    bom.register_dependency(ours, found)
    return str(JsonV1Dot6(bom).output_as_string(indent=1)) + "\n"


def of_carried(when: int, found: Iterable[Carried]) -> str:
    """The document of what carries these."""
    return document(when, [_library(each) for each in found])


def of_tree(when: int, root: Path, release: str, inner: str) -> str:
    """The document of a file system: of the package in it (its own, `inner`), and of its dpkg's."""
    package = Bom.from_json(json.loads(inner))
    status = (root / "var/lib/dpkg/status").read_text(encoding="utf-8")
    return document(when, [*package.components, *_debian(status, release)])


def main() -> None:
    """For the image's build: ``python -m packages.sbom WHEN ROOT RELEASE``; writes it to ROOT."""
    when, root, release = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    home = root / "usr/share/rsttrace"
    text = of_tree(when, root, release, (home / NAME).read_text(encoding="utf-8"))
    (home / IMAGE).write_text(text, encoding="utf-8")


def components(text: str) -> list[dict[str, Any]]:
    """The components of a document, the first one of them ours."""
    found = json.loads(text)
    return [found["metadata"]["component"], *found["components"]]


if __name__ == "__main__":
    main()
