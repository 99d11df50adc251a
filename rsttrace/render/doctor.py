"""What ``doctor`` found, as text and as a JSON object."""

from __future__ import annotations

from typing import Any

from rsttrace.model import Diagnosis, Result


def doctor_object(diagnosis: Diagnosis) -> dict[str, Any]:
    """The object of ``doctor -o json`` (schema 1)."""
    loading = diagnosis.loading
    return {
        "schema": 1,
        "doctor": {
            "works": diagnosis.works,
            "kernel": diagnosis.kernel,
            "machine": diagnosis.machine,
            "python": diagnosis.python,
            "plan": loading.plan if loading else None,
            "source": loading.source if loading else None,
            "bcc": loading.bcc if loading else None,
            "missing_fields": loading.missing_fields if loading else None,
            "knows": loading.knows if loading else None,
            "unknown": loading.unknown if loading else None,
            "hooks": [
                {
                    "target": hook.target,
                    "type": hook.type,
                    "attached": hook.attached,
                    "error": hook.error,
                    "unseen": None if hook.attached else hook.unseen,
                }
                for hook in (loading.hooks if loading else ())
            ],
            "checks": [
                {
                    "name": check.name,
                    "result": check.result.value,
                    "text": check.text,
                    "hint": check.hint,
                }
                for check in diagnosis.checks
            ],
        },
    }


def doctor_lines(diagnosis: Diagnosis) -> list[str]:
    """The same for people."""
    lines = [f"rsttrace on Linux {diagnosis.kernel} ({diagnosis.machine})"]
    width = max(len(check.name) for check in diagnosis.checks)
    for check in diagnosis.checks:
        lines.append(f"  {check.result.value:<8}{check.name:<{width}}  {check.text}")
        if check.hint:
            lines.append(f"  {'':8}{'':<{width}}  what to do: {check.hint}")
    loading = diagnosis.loading
    if loading is None:
        return [*lines, "tracing does not work here: see above"]
    for hook in loading.hooks:
        result = Result.OK if hook.attached else Result.WARNING
        state = "attached" if hook.attached else f"not attached: {hook.error}"
        lines.append(f"  {result.value:<8}{hook.type} {hook.target}: {state}")
        if not hook.attached:
            lines.append(f"  {'':8}unseen: {hook.unseen}")
    attached = sum(hook.attached for hook in loading.hooks)
    lines.append(
        f"tracing works here (plan: {loading.plan}; hooks: {attached} of {len(loading.hooks)})"
    )
    return lines
