"""Runs of a check: one to its end, one that is killed and resumed, the export of one, one whose memory runs out."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lowmem_rl.storage.run_dir import RunDir, read_rows
from lowmem_rl_bench.prove.processes import Failed, Site
from lowmem_rl_bench.prove.run_faults import Found, whole_groups
from lowmem_rl_bench.prove.settings import Settings, as_options, as_texts

EXAMPLES = 8
"""Held-out items of an export's proof."""


def train_words(settings: Settings, preset: str = "tiny-cpu") -> list[str]:
    """Returns the arguments of `train` without --out."""
    return ["train", "--preset", preset, *as_options(settings), "--force"]


def whole_run(site: Site, settings: Settings) -> RunDir:
    """Returns the embedded model's run with these settings, which it trains unless an earlier check has done so."""
    run = RunDir(site.folder / "whole")
    if not run.report.exists():
        site.lowmem("train", *train_words(settings), "--out", str(run.path))
    return run


def killed_and_resumed(site: Site, settings: Settings, whole: RunDir) -> Found:
    """Trains the same run again, kills it after its first checkpoint, resumes it, and compares both."""
    killed = RunDir(site.folder / "killed")
    words = ["lowmem_rl_cli", *train_words(settings), "--out", str(killed.path)]
    site.killed("killed", killed.checkpoint(1).exists, *words)
    site.lowmem("resume", "train", "--resume", "--force", "--out", str(killed.path))
    return _compared(whole, killed)


def _compared(whole: RunDir, killed: RunDir) -> Found:
    """Returns the differences of a killed run, and the distance of its adapter over the largest weight."""
    from safetensors.numpy import load_file

    from lowmem_rl_bench.step.ratios import distance
    from lowmem_rl_bench.verify_resume import differences

    found = list(differences(whole, killed))
    adapters = [load_file(run.adapter / "adapter_model.safetensors") for run in (killed, whole)]
    return {"exact": not found, "differences": found[:8], "adapter_distance": distance(*adapters)}


def check_resumed(resumed: Found) -> None:
    """Raises `Failed` if a resumed run differs."""
    if not resumed["exact"]:
        off = f"its adapter is {resumed['adapter_distance']:.1e} off"
        raise Failed(f"The resumed run differs: {off}; {'; '.join(resumed['differences'])}")


def exported(site: Site, run: RunDir) -> Found:
    """Exports a run's adapter; returns the proof that it answers like the trained model."""
    words = ("export", str(run.path), "--to", "adapter", "--examples", str(EXAMPLES), "--json")
    return dict(json.loads(site.lowmem("export", *words))["proof"])


def check_export(proof: Found) -> None:
    """Raises `Failed` if an export answers differently than its run."""
    if not proof["holds"]:
        raise Failed(f"The export does not hold: {'; '.join(proof['faults'])}")


@contextmanager
def holding(found: Found) -> Iterator[None]:
    """Adds the results so far to a `Failed` that is raised inside."""
    try:
        yield
    except Failed as error:
        error.found = found
        raise


def survived_shortage(site: Site, preset: str, settings: Settings) -> Found:
    """Trains one step, in which the card becomes too small.

    Raises `Failed` unless the step ends with the groups it began with.
    """
    run = RunDir(site.folder / "short")
    order = {"preset": preset, "settings": as_texts(settings), "out": str(run.path)}
    ended = site.child("lowmem_rl_bench.prove.shortage", order, "out-of-memory")
    cap = f"{ended['limit_bytes']} bytes, of {ended['held_bytes']} to {ended['peak_bytes']}"
    return ended | _recovered(list(read_rows(run.recoveries)), cap) | _whole_step(run)


def _recovered(recoveries: Sequence[Found], cap: str) -> Found:
    if not recoveries:
        raise Failed(f"Memory did not run out, though it was capped at {cap}.")
    names = ("step", "phase", "rows", "next_rows", "why")
    return {"recoveries": [{name: row[name] for name in names} for row in recoveries]}


def _whole_step(run: RunDir) -> Found:
    steps = list(read_rows(run.metrics))
    if len(steps) != 1:
        raise Failed(f"{len(steps)} steps were taken instead of one.")
    return {"groups": whole_groups(run), "loss": steps[0]["loss"]}
