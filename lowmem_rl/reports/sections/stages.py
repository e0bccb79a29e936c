"""The stages before a run, as its config.json records them: report and model card show them."""

import json
from pathlib import Path

from lowmem_rl.reports.escape import one_line
from lowmem_rl.reports.page_table import PageTable
from lowmem_rl.reports.run_record import RunRecord
from lowmem_rl.storage.run_dir import Row

_KINDS = {"grpo": "GRPO", "warmup": "SFT on gold completions (warm-up)", "adapter": "an adapter from elsewhere"}


def stages_of(record: RunRecord) -> PageTable:
    """Returns the stages before a run, oldest first, without a row for a run that began at a model of others."""
    rows = tuple((str(number), *_cells(stage)) for number, stage in enumerate(record.lineage, start=1))
    hint = "The run started from the last of these; that start is its KL reference."
    return PageTable("Stages before this run", hint, ("", "stage", "from", "weights"), rows)


def _cells(stage: Row) -> tuple[str, str, str]:
    return sentence_of(stage), one_line(stage.get("path") or "?", 200), one_line(stage.get("weights") or "-", 40)


def sentence_of(stage: Row) -> str:
    """Returns a stage in words: what taught it, and for how long."""
    kind = _KINDS.get(str(stage.get("kind")), "a stage of another version")
    task = f" on {Path(str(stage['task'])).name}" if stage.get("task") else ""
    steps = f", {stage['steps']} steps" if stage.get("steps") is not None else ""
    rewards = stage.get("rewards")
    paid = f", paid by {json.dumps(rewards)}" if isinstance(rewards, dict) and rewards else ""
    return one_line(f"{kind}{task}{steps}{paid}", 300)
