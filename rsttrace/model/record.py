"""What our vocabulary's classes are made with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, TypeVar

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Callable[[Any], Any]:
        """Only the type checker needs it (PEP 681)."""
        return lambda decorator: decorator


Record = TypeVar("Record")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[Record]) -> type[Record]:
    """A dataclass that is never changed: made once, compared and hashed by value.

    The type checker holds that, not the running program: a frozen dataclass sets each field through
    `object.__setattr__`, and is three times as slow to make (``make bench``: decode). A storm's
    entry has dozens of these.
    """
    return dataclass(unsafe_hash=True)(cls)


def changed(one: Record, **values: Any) -> Record:
    """A record with other values, as `dataclasses.replace` makes it, for where each reset passes:
    nothing is checked, and nothing called."""
    made = object.__new__(type(one))
    made.__dict__.update(one.__dict__, **values)
    return made
