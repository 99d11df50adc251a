"""Whom to become: ``--user``, ``--keep-root``."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass

from rsttrace.errors import UsageError

DEFAULT = "nobody"
NOBODY = 65534
"""The number of nobody and of his group where there is no database of users (an image of a program
alone): what the kernel shows for one that it cannot (/proc/sys/kernel/overflowuid)."""


@dataclass(frozen=True)
class Account:
    """A user. `name` is as it is shown."""

    name: str
    uid: int
    gid: int


def account(user: str | None, *, keep_root: bool = False) -> Account | None:
    """Whom to become once everything is open; ``None``: nobody else.

    That is so for whoever is not root, and for root who wants to stay.

    Args:
        user: a name or a number; ``None``: `DEFAULT`.
        keep_root: stay root.

    Raises:
        UsageError: there is no such user; it is root; only root can become another one.
    """
    if user is None:
        return None if keep_root or os.geteuid() != 0 else _named(DEFAULT) or _numbered(NOBODY)
    if keep_root:
        raise UsageError("--user and --keep-root contradict each other: give one of them")
    if os.geteuid() != 0:
        raise UsageError("--user: only root can become another user", hint="run it with sudo")
    number = int(user) if user.isascii() and user.isdigit() and len(user) <= 10 else None
    found = _named(user) if number is None else _numbered(number)
    if found is None:
        raise UsageError(
            f"--user {user!a}: there is no such user",
            hint="give a name that `getent passwd` lists, or a number",
        )
    if found.uid == 0:
        raise UsageError(f"--user {user!a} is root", hint="--keep-root stays root")
    return found


def _named(name: str) -> Account | None:
    try:
        found = pwd.getpwnam(name)
    except (KeyError, ValueError):
        return None
    return Account(name, found.pw_uid, found.pw_gid)


def _numbered(number: int) -> Account | None:
    """A user by number, in the database or not; None: it is no user's number."""
    if number >= (1 << 32) - 1:  # -1 means "as it is" (setresuid(2))
        return None
    try:
        found = pwd.getpwuid(number)
    except KeyError:
        return Account(f"uid {number}", number, NOBODY)
    return Account(found.pw_name, number, found.pw_gid)
