"""What our vocabulary's classes are made with."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, TypeVar

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Callable[[Any], Any]:
        """Only the type checker needs it (PEP 681)."""
        return lambda decorator: decorator


Record = TypeVar("Record")

SLOTS: dict[str, Any] = {"slots": True} if sys.version_info >= (3, 10) else {}
"""For dataclasses of which there are many: what lies in the object itself, not beside it, is read
and made with half as many looks at memory, and takes less of it."""


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[Record]) -> type[Record]:
    """A dataclass that is never changed: made once, compared and hashed by value.

    The type checker holds that, not the running program: a frozen dataclass sets each field through
    `object.__setattr__`, and is three times as slow to make (``make bench``: decode). A storm's
    entry has dozens of these.
    """
    return dataclass(unsafe_hash=True, **SLOTS)(cls)


def changed(one: Record, **values: Any) -> Record:
    """A record with other values, as `dataclasses.replace` makes it, for where each reset passes:
    nothing is checked, and nothing called."""
    kind: Any = type(one)
    made: Record = object.__new__(kind)
    for name in kind.__dataclass_fields__:
        setattr(made, name, values[name] if name in values else getattr(one, name))
    return made
