"""Which run writes a line of JSON: ``run`` in each of them."""

from __future__ import annotations

import os

from rsttrace import __version__
from rsttrace.render.json import About

BOOT_ID = "/proc/sys/kernel/random/boot_id"  # random(4); journald's _BOOT_ID, with dashes


def about_run() -> About:
    """This run: another ID each time it is called."""
    return {
        "id": os.urandom(16).hex(),
        "host": os.uname().nodename or None,
        "boot": _boot_id(),
        "version": __version__,
    }


def _boot_id() -> str | None:
    try:
        with open(BOOT_ID, encoding="ascii") as file:
            return file.read().strip() or None
    except (OSError, ValueError):
        return None
