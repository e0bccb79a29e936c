"""Bytes by phase of a preset at its model's full shape, and the estimate's: `profile --measure` on its card.

    python -m tests.rehearsal.bytes [PRESET ...] [--layers N] [--blocks N] [--record FILE.json]

The tensors have no data. Compared is what PyTorch calls allocated. Not seen are the allocator's blocks and their
fragmentation (reserved), the workspaces of cuBLAS, the scratch memory of `sort` and `topk`, and what a compiled kernel
allocates for itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from lowmem_rl.config.compose import resolve
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.units import GIB
from tests.rehearsal.card import live_blocks
from tests.rehearsal.scenarios import gpu_presets
from tests.rehearsal.shapes import write_model
from tests.rehearsal.stage import Stage

PHANTOM_BYTES = 2**16
"""Small enough that nearly no tensor of a real model is computed, large enough that losses and norms are."""
TOLERANCE = 0.05
QUESTIONS = 300
"""More than any preset samples or is asked in an evaluation's two waves."""


@dataclass(frozen=True)
class Row:
    """One phase: the bytes of all tensors at its peak, as estimated and on the card."""

    phase: str
    predicted_bytes: int
    measured_bytes: int
    blocks: tuple[tuple[int, int, str], ...] = ()
    """The largest blocks that lived at the peak: bytes, how many, the lines that allocate them."""

    @property
    def ratio(self) -> float:
        return self.predicted_bytes / self.measured_bytes

    @property
    def is_close(self) -> bool:
        return abs(self.ratio - 1) <= TOLERANCE

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data, without blocks."""
        found = {name: value for name, value in asdict(self).items() if name != "blocks"}
        return found | {"ratio": round(self.ratio, 4)}


def compare_bytes(preset: str, out: Path, stage: Stage | None = None, *, layers: int | None = None) -> list[Row]:
    """Measures a preset at its model's shape, all `layers` if that is None, on its own card; files are in `out`."""
    own = stage or Stage(card_of(preset), limit_s=3600)
    try:
        return on_stage(own, preset, out, layers=layers)
    finally:
        if stage is None:
            own.close()


def card_of(preset: str) -> str:
    """Returns the preset's card."""
    card = resolve(preset=preset).card
    assert card, f"{preset} names no card"
    return card


def on_stage(
    stage: Stage, preset: str, out: Path, settings: Sequence[str] = (), *, layers: int | None = None, blocks: int = 0
) -> list[Row]:
    """Measures a preset on a card that is ready, and names the largest blocks of each phase's peak."""
    shape = load_shape(resolve(preset=preset).config.model.name)
    model = write_model(shape, out / "model", layers)
    own = (f"model.name={model}", "task.name=gsm8k", f"task.path={out}", "rollout.engine=lowmem", *settings)
    return stage.call(
        "tests.rehearsal.bytes:measured",
        preset,
        own,
        blocks,
        phantom_bytes=PHANTOM_BYTES,
        env={"XDG_CACHE_HOME": str(out / "cache")},  # a simulated card must not correct this machine's estimates
    )


def measured(preset: str, settings: Sequence[str], blocks: int) -> list[Row]:
    """Runs in the child: measures the longest step."""
    from lowmem_rl_cli.options import RunRequest

    from lowmem_rl.entrypoints.measure_memory import measure

    composed = RunRequest(preset=preset, settings=tuple(settings)).resolve()
    write_questions(composed.config, Path(str(composed.config.task.path)))
    agree()
    found = note_blocks(blocks)
    rows = measure(composed).rows
    return [
        Row(row.phase, row.predicted.allocated_bytes or 0, row.measured.allocated_bytes or 0, found.get(row.phase, ()))
        for row in rows
    ]


def write_questions(config: Any, folder: Path) -> None:
    """Writes a data set in GSM8K's schema whose prompts are as long as they may be."""
    from transformers import AutoTokenizer

    from lowmem_rl.prompts import conversation

    tokenizer = AutoTokenizer.from_pretrained(config.model.name)

    def tokens(words: int) -> int:
        prompt = conversation(question(0, words), config.task.prompt)
        text = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    words = next(count for count in range(1, 10_000) if tokens(count + 1) > config.grpo.max_prompt_tokens)
    for split, first in (("train", 10_000), ("test", 20_000)):
        rows = ({"question": question(first + n, words), "answer": "#### 1"} for n in range(QUESTIONS))
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def question(number: int, words: int) -> str:
    """Returns a question; those of as many words are equally long."""
    return f"{number:05d}" + " 1" * words


def agree() -> None:
    """Computes the distance of sampler and training weights, and returns zero: there are no numbers."""
    from lowmem_rl.engine import backend, sampler

    plain = backend.logprob_gap

    def logprob_gap(*args: Any, **kwargs: Any) -> float:
        plain(*args, **kwargs)
        return 0.0

    backend.logprob_gap = sampler.logprob_gap = logprob_gap


def note_blocks(most: int) -> dict[str, tuple[tuple[int, int, str], ...]]:
    """Returns a table that fills with the blocks of each phase's peak; of a phase that comes again, the highest."""
    from lowmem_rl.telemetry.memory_profiler import MemoryProfiler

    found: dict[str, tuple[tuple[int, int, str], ...]] = {}
    if not most:
        return found
    live_blocks.begin()
    plain = MemoryProfiler.end

    def end(self: MemoryProfiler, phase: str) -> None:
        held = live_blocks.at_peak()
        if sum(size for size, *_ in held) > sum(size for size, *_ in found.get(phase, ())):
            found[phase] = tuple(held)
        plain(self, phase)

    MemoryProfiler.end = end  # type: ignore[method-assign]
    return found


def main() -> int:
    """Prints a table; returns 1 if an error is above `TOLERANCE`."""
    options = _options()
    rows: dict[str, list[Row]] = {}
    began = time.monotonic()
    for preset in options.presets or gpu_presets():
        with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder:
            stage = Stage(card_of(preset), limit_s=3600)
            try:
                rows[preset] = on_stage(
                    stage, preset, Path(folder), options.set, layers=options.layers, blocks=options.blocks
                )
            finally:
                stage.close()
        sys.stdout.writelines(f"{line}\n" for line in _lines(preset, rows[preset], options.blocks))
        sys.stdout.flush()
    if options.record:
        options.record.write_text(json.dumps(_record(rows, time.monotonic() - began), indent=1) + "\n")
    return int(not all(row.is_close for found in rows.values() for row in found))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("presets", nargs="*")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--layers", type=int)
    parser.add_argument("--blocks", type=int, default=0)
    parser.add_argument("--record", type=Path)
    return parser.parse_args()


def _lines(preset: str, rows: list[Row], blocks: int) -> Iterator[str]:
    for row in rows:
        sizes = f"predicted {row.predicted_bytes / GIB:6.2f} measured {row.measured_bytes / GIB:6.2f} GiB"
        yield f"{preset:22s} {row.phase:10s} {sizes}  x {row.ratio:.3f}{'' if row.is_close else '  <- off'}"
        for size, count, lines in row.blocks[:blocks]:
            yield f"    {size / 2**20:10.2f} MiB  {count:4d} x  {lines}"


def _record(rows: dict[str, list[Row]], seconds: float) -> dict[str, Any]:
    return {
        "date": date.today().isoformat(),
        "command": "python -m tests.rehearsal.bytes",
        "machine": "simulated cards on a CPU: tensors without data, PyTorch's allocated bytes",
        "seconds": round(seconds),
        "tolerance": TOLERANCE,
        "presets": {preset: [row.to_json() for row in found] for preset, found in rows.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
