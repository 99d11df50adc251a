"""Calls of kernel functions in compiled programs."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from rsttrace.kernel import typed
from rsttrace.kernel.image import INSTRUCTION

RETURN = INSTRUCTION.pack(0x95, 0, 0, 0)


def test_a_call_of_that_number_becomes_one_of_the_kernels_function() -> None:
    helper, function = INSTRUCTION.pack(0x85, 0, 0, 5), INSTRUCTION.pack(0x85, 0, 0, 70_000)
    number = INSTRUCTION.pack(0xB7, 2, 0, 70_000)
    changed = typed.call_kernel(helper + number + function + RETURN, 70_000)
    kernels = INSTRUCTION.pack(0x85, 0x20, 0, 70_000)
    assert changed == helper + number + kernels + RETURN


def test_without_that_function_nothing_is_changed() -> None:
    code = INSTRUCTION.pack(0x85, 0, 0, 0) + RETURN
    assert typed.call_kernel(code, 0) == code


def test_without_types_nothing_is_typed() -> None:
    assert set(typed.numbers(None).values()) == {0}


@pytest.mark.parametrize("threads", [True, False])
@pytest.mark.parametrize("outcome", [7, OSError("refused")])
def test_what_is_loading_comes_to_what_loading_comes_to(
    threads: bool, outcome: int | OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a limit allows no thread more."""

    def load(*asked: Any) -> int:
        assert asked == (RETURN, "name", "target", None)
        assert (threading.current_thread() is threading.main_thread()) is not threads
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(typed, "load", load)
    if not threads:
        monkeypatch.setattr(threading.Thread, "start", no_more)
    nothing: Any = None
    assert typed.Loading(RETURN, "name", "target", nothing).outcome() == outcome
