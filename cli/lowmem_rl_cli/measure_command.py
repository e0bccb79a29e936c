"""`lowmem-rl profile --measure`: one real step, the longest the run can meet, predicted beside measured."""

import sys
from collections.abc import Iterator

from rich.console import Console

from lowmem_rl.entrypoints.measure_memory import Measurement
from lowmem_rl.memory.calibration import Calibration, Footprint, calibration_path
from lowmem_rl.units import GIB
from lowmem_rl_cli import console
from lowmem_rl_cli.options import RunRequest
from lowmem_rl_cli.text_page import TextPage, stdout_page

KINDS = {
    "allocated": "allocated_bytes",
    "reserved": "reserved_bytes",
    "process": "process_bytes",
}


def measure_command(request: RunRequest, as_json: bool) -> None:
    """Measures and prints; what was measured corrects the predictions that follow on this machine."""
    from lowmem_rl.entrypoints.measure_memory import measure
    from lowmem_rl_cli.live_view import view_for

    composed = request.resolve()
    # Bound to the real stream: the libraries' talk is sent elsewhere while the step lasts.
    view = view_for(Console(file=sys.stderr, highlight=False), composed.preset, live=False)
    try:
        measured = measure(composed, view.show)
    finally:
        view.close()
    if as_json:
        console.show_json(measured.to_json() | {"calibration": _calibration_json(measured.calibration)})
    else:
        console.show("\n".join(_lines(measured, composed.preset, stdout_page())))


def _lines(measured: Measurement, preset: str, page: TextPage) -> Iterator[str]:
    yield from page.heading(f"{preset}: the longest step, on {measured.where}; peaks in GiB")
    yield from page.fold(_lengths(measured))
    yield ""
    kinds = [kind for kind in KINDS if any(_size(row.measured, kind) is not None for row in measured.rows)]
    head = ["phase", *(f"{kind}, {side}" for kind in kinds for side in ("predicted", "measured"))]
    body = [[row.phase, *_cells(row.predicted, row.measured, kinds)] for row in measured.rows]
    yield from page.table(body, "l" + "r" * (len(head) - 1), head)
    yield ""
    for remark in _remarks(measured, kinds):
        yield from page.fold(remark, "")


def _cells(predicted: Footprint, measured: Footprint, kinds: list[str]) -> Iterator[str]:
    for kind in kinds:
        yield _gib(_size(predicted, kind))
        yield _gib(_size(measured, kind))


def _remarks(measured: Measurement, kinds: list[str]) -> Iterator[str]:
    if len(kinds) < len(KINDS):
        yield "On a CPU the process alone can be measured: PyTorch counts tensors and their pool on a GPU only."
    if not measured.has_phase_peaks:
        yield "This system does not reset a process's peak: each phase shows the highest so far."
    if measured.calibration:
        factor = f"{measured.calibration.factor:.2f} x the overhead around the tensors"
        yield f"Stored in {calibration_path()}. Later predictions here take {factor}: {measured.calibration}."


def _lengths(measured: Measurement) -> str:
    met, limits = measured.lengths, measured.limits
    prompts = f"prompts of up to {met.prompt_tokens} tokens, the run's longest (limit {limits.prompt_tokens})"
    return f"{prompts}; completions of {met.completion_tokens} (limit {limits.completion_tokens})"


def _size(footprint: Footprint, kind: str) -> int | None:
    size: int | None = getattr(footprint, KINDS[kind])
    return size


def _gib(size: int | None) -> str:
    return "-" if size is None else f"{size / GIB:.2f}"


def _calibration_json(calibration: Calibration | None) -> dict[str, object] | None:
    if calibration is None:
        return None
    return {
        "factor": round(calibration.factor, 4),
        "rows": calibration.rows,
        "latest": calibration.latest.isoformat(),
        "path": str(calibration_path()),
    }
