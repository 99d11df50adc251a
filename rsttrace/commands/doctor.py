"""``rsttrace doctor``: what this kernel offers, and what is missing."""

from __future__ import annotations

from rsttrace.commands.about import about_run
from rsttrace.commands.run import machine_form, to_stderr
from rsttrace.kernel.doctor import diagnose
from rsttrace.render.doctor import doctor_lines, doctor_object


def run_command(output: str, *, verbose: bool, plan: str) -> int:
    """The command; the exit code: 0 if tracing works here, 1 if not."""
    diagnosis = diagnose(plan)
    if output != "text":
        lines = [machine_form(output)(doctor_object(diagnosis), about_run())]
    else:
        lines = doctor_lines(diagnosis)
    print("\n".join(lines), flush=True)
    if verbose and diagnosis.log:
        to_stderr(diagnosis.log)
    return 0 if diagnosis.works else 1
