"""Giving away the rights of root once everything is open; the helper keeps what is still needed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Protocol

from rsttrace.enrich import lldp, reach, vendor
from rsttrace.errors import RsttraceError
from rsttrace.privileges import capabilities, outfile
from rsttrace.privileges.account import NOBODY, Account
from rsttrace.privileges.asking import Helper
from rsttrace.privileges.names import names


class Source(Protocol):
    """What of the kernel side takes rights after the start; see `rsttrace.kernel.source`."""

    def maps(self) -> list[tuple[int, int]]:
        """Descriptor, and size of a value, of each map to look up in."""

    def waiting(self) -> dict[str, int]:
        """The programs that are attached later."""

    def rely_on(
        self, lookup: Callable[[int, bytes, int], bytes], attach: Callable[[int, str], int]
    ) -> None:
        """Have these look up and attach."""


def _maps_of(source: Source | None) -> list[tuple[int, int]]:
    """The maps that will be looked up in; what can be read of them now is read."""
    with contextlib.suppress(OSError, RsttraceError):
        return source.maps() if source is not None else []
    return []


class Giving:
    """A context manager: inside, the helper does what takes rights, and `give_up` is possible.

    Args:
        account: whom to become; ``None``: this process stays what it is, and there is no helper.
    """

    def __init__(self, account: Account | None) -> None:
        self._account = account
        self._helper: Helper | None = None
        self._told = False
        self._said: list[str] = []
        self._quiet: list[str] = []

    def __enter__(self) -> Giving:
        if self._account is None:
            return self
        try:
            # before there are other threads, whom it would not reach
            capabilities.no_new_privileges()
            self._helper = Helper()
        except OSError as error:
            self._said.append(
                f"warning: there is no helper: {error.strerror}; what it does is lost"
            )
        else:
            reach.rely_on(self._helper)
            outfile.rely_on(self._helper)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._helper is not None:
            reach.rely_on(None)
            outfile.rely_on(None)
            self._helper.close()

    def give_up(self, source: Source | None = None, *, probes: bool = False) -> None:
        """Everything is open: settle what the helper will be asked for, and become another user.

        Args:
            source: the kernel side.
            probes: raw sockets will be needed.
        """
        account, helper = self._account, self._helper
        if account is None:
            return
        _load_the_rest()
        maps = _maps_of(source)
        if helper is not None:
            try:
                helper.settle(maps, source.waiting() if source is not None else {}, vendor.files())
                helper.seal(probes=probes)
            except OSError as error:
                if not helper.is_gone():  # else `check` says it
                    self._said.append(f"warning: the helper is not prepared: {error.strerror}")
                    helper.close()  # it would still do whatever it is asked for
            if source is not None:
                source.rely_on(helper.lookup, helper.attach)
        self._become(account)
        if helper is not None and not helper.is_gone():
            self._quiet.append(f"  helper: {helper.pid}, with {names(helper.kept)}")

    def _become(self, account: Account) -> None:
        """Be this user, without any capability."""
        try:
            os.setgroups([])
            os.setresgid(account.gid, account.gid, account.gid)
            capabilities.keep_bounding()
            os.setresuid(account.uid, account.uid, account.uid)
        except OSError as error:
            self._said.append(
                f"warning: cannot become {account.name}: {error.strerror} (it takes CAP_SETUID and "
                "CAP_SETGID); root's files stay open to this process"
            )
        try:
            capabilities.keep_only(0)
        except OSError as error:
            self._said.append(f"warning: the capabilities stay: {error.strerror}")
            return
        if account.uid == NOBODY and account.name != "nobody":
            self._said.append(f"  there is no user nobody: runs as {account.name}")
        self._quiet.append(f"  runs as {account.name}, without capabilities")

    def lines(self, *, verbose: bool) -> list[str]:
        """What the user is told at the start."""
        return [*(self._quiet if verbose else ()), *self._said]

    def check(self, say: Callable[[str], None]) -> None:
        """Say, once, that the helper is gone, and what that costs."""
        if self._helper is None or self._told or not self._helper.is_gone():
            return
        self._told = True
        say(
            "warning: the helper has ended: from now on there are no neighbours, next hops, "
            "listeners and rules of other network namespaces, no processes of older connections, "
            "no probes, and no files that are made later"
        )


def _load_the_rest() -> None:
    """Read now what is read later: the other user need not have the right to."""
    import rsttrace.enrich.inquiry  # noqa: F401

    lldp.ask_now()
