"""`lowmem-rl profile --measure`: one real step, the longest the run can meet, predicted and measured."""

import sys
from collections.abc import Iterator

from rich.console import Console

from lowmem_rl.entrypoints.measure_memory import Measurement
from lowmem_rl.memory.calibration import Footprint, calibration_path
from lowmem_rl.units import GIB
from lowmem_rl_cli import console
from lowmem_rl_cli.options import RunRequest
from lowmem_rl_cli.text_page import TextPage, stdout_page

_KINDS = ("allocated", "reserved", "process")
"""Of memory; a `Footprint` has `<kind>_bytes`."""


def measure_command(request: RunRequest, as_json: bool) -> None:
    """Measures and prints; what was measured corrects the predictions that follow on this machine."""
    from lowmem_rl.entrypoints.measure_memory import measure
    from lowmem_rl_cli.live_view import view_for

    composed = request.resolve()
    # Bound to the real stream: the libraries' output is redirected during the step.
    view = view_for(Console(file=sys.stderr, highlight=False), composed.preset, live=False)
    try:
        measured = measure(composed, view.show)
    finally:
        view.close()
    if as_json:
        known = measured.calibration and {
            "factor": round(measured.calibration.factor, 4),
            "rows": measured.calibration.rows,
            "latest": measured.calibration.latest.isoformat(),
            "path": str(calibration_path()),
        }
        console.show_json(measured.to_json() | {"calibration": known})
    else:
        console.show("\n".join(_lines(measured, composed.preset, stdout_page())))


def _lines(measured: Measurement, preset: str, page: TextPage) -> Iterator[str]:
    yield from page.heading(f"{preset}: the longest step, on {measured.where}; peaks in GiB")
    met, limits = measured.lengths, measured.limits
    prompts = f"prompts of up to {met.prompt_tokens} tokens, the run's longest (limit {limits.prompt_tokens})"
    completions = f"completions of {met.completion_tokens} (limit {limits.completion_tokens})"
    yield from page.fold(f"{prompts}; {completions}{_scheduled(measured)}")
    yield ""
    kinds = [kind for kind in _KINDS if any(_size(row.measured, kind) is not None for row in measured.rows)]
    head = ["phase", *(f"{kind}, {side}" for kind in kinds for side in ("predicted", "measured"))]
    sides = [(row.phase, (row.predicted, row.measured)) for row in measured.rows]
    body = [[phase, *(_gib(_size(side, kind)) for kind in kinds for side in both)] for phase, both in sides]
    yield from page.table(body, "l" + "r" * (len(head) - 1), head)
    yield ""
    for remark in _remarks(measured, kinds):
        yield from page.fold(remark, "")


def _scheduled(measured: Measurement) -> str:
    if measured.schedule == "fixed":
        return ""
    return f"; of {measured.schedule} the heaviest step, {measured.step}, in which layers {measured.layers} learn"


def _remarks(measured: Measurement, kinds: list[str]) -> Iterator[str]:
    if len(kinds) < len(_KINDS):
        yield "On a CPU only the process can be measured: PyTorch counts tensors and their pool on a GPU only."
    if not measured.has_phase_peaks:
        yield "This system does not reset a process's peak: each phase shows the highest so far."
    if measured.calibration:
        factor = f"{measured.calibration.factor:.2f} x the overhead around the tensors"
        yield f"Stored in {calibration_path()}. Later predictions here take {factor}: {measured.calibration}."


def _size(footprint: Footprint, kind: str) -> int | None:
    size: int | None = getattr(footprint, f"{kind}_bytes")
    return size


def _gib(size: int | None) -> str:
    return "-" if size is None else f"{size / GIB:.2f}"
