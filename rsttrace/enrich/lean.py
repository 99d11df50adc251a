"""pyroute2 without what nobody asks for.

``import pyroute2.netns`` first runs the package's own ``__init__``, which imports every protocol
that it knows: 14 MB and 0.1 s, for three kinds of messages that are needed here. `prepare` puts the
package there without running that. Whoever wants more of it finds it all the same: a name that is
neither there nor a module of the package has it run.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from contextlib import suppress
from types import ModuleType
from typing import Any

NAME = "pyroute2"

_lock = threading.Lock()


def prepare() -> None:
    """Call it before anything of pyroute2 is imported; harmless if it has been, or is not there."""
    with _lock:
        if NAME in sys.modules:
            return
        spec = importlib.util.find_spec(NAME)
        if spec is None or spec.loader is None or spec.submodule_search_locations is None:
            return
        made = importlib.util.module_from_spec(spec)
        made.__dict__["__getattr__"] = _Rest(made)
        sys.modules[NAME] = made


class _Rest:
    """The module's ``__getattr__`` (PEP 562)."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def __call__(self, name: str) -> Any:
        module = self._module
        spec = module.__spec__
        if name.startswith("__") or spec is None or spec.loader is None:
            raise AttributeError(f"module {NAME!r} has no attribute {name!r}")
        with suppress(ModuleNotFoundError):
            return importlib.import_module(f"{NAME}.{name}")
        module.__dict__.pop("__getattr__", None)
        spec.loader.exec_module(module)
        return getattr(module, name)
