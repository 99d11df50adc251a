"""Errors that reach the user as one line.

The tree::

    RsttraceError            exit code 1
    ├── PrivilegeError       not root, or a capability is missing
    ├── DependencyError      bcc, libbpf, or a tool is missing or is the wrong one
    ├── KernelError          this kernel refuses, or lacks what tracing needs
    ├── CaptureError         a capture file cannot be read
    ├── ConfigError          a configuration file of this machine cannot be used
    ├── LabError             the demo's network namespaces could not be built
    └── UsageError           the command line asks for something impossible; exit code 2
"""

from __future__ import annotations


class RsttraceError(Exception):
    """A failure the user can act on: what failed, why, and what to do.

    ``str(error)`` is what is printed after ``rsttrace: ``; `exit_code` is the
    process's exit status. `log` is what a tool printed on the way, for ``-v``.
    """

    exit_code = 1

    def __init__(self, what: str, *, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.log = ""

    def __str__(self) -> str:
        return f"{self.what}\n  what to do: {self.hint}" if self.hint else self.what


class PrivilegeError(RsttraceError):
    """Not root, or a needed capability is missing."""


class DependencyError(RsttraceError):
    """A library or program that rsttrace needs is missing or is the wrong one."""


class KernelError(RsttraceError):
    """The running kernel refuses or lacks something without which nothing can be traced."""


class CaptureError(RsttraceError):
    """A capture file cannot be read: it is missing, no capture, or broken from the start."""


class LabError(RsttraceError):
    """The demo's network namespaces could not be built."""


class ConfigError(RsttraceError):
    """A configuration file of this machine, or one that was installed, cannot be used."""


class UsageError(RsttraceError):
    """The command line asks for something that cannot be done."""

    exit_code = 2
