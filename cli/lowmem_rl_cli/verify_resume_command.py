"""`lowmem-rl verify-resume`: kills and resumes a tiny run, compares it with an uninterrupted one."""

import json
import shutil
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.device import device_on
from lowmem_rl.models.hardware import this_machine
from lowmem_rl.stack import check_installed
from lowmem_rl.telemetry.environment import environment_record
from lowmem_rl_bench.verify_resume import Kill, ResumeProof, verify_resume
from lowmem_rl_cli import console
from lowmem_rl_cli.text_page import list_page


def verify_resume_command(kills: int, seed: int, settings: list[str], *, as_json: bool, out: Path | None) -> bool:
    """Shows the proof and returns whether both runs end equal; if not, their directories are kept."""
    check_installed()
    folder = Path(tempfile.mkdtemp(prefix="lowmem-rl-verify-resume-"))
    proof = None
    try:
        proof = verify_resume(kills, folder, console.say, seed, settings)
    finally:
        if (proof is not None and proof.is_exact) or not any(folder.iterdir()):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            console.say(f"Both runs are kept in {folder}.")
    record = _record(proof, kills, seed, settings)
    if out is not None:
        out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        console.say(f"Wrote {out}.")
    console.show_json(record) if as_json else console.show(render(proof))
    return proof.is_exact


def _record(proof: ResumeProof, kills: int, seed: int, settings: list[str]) -> dict[str, Any]:
    """Returns the proof with date, command and machine."""
    machine = this_machine()
    return {
        "date": date.today().isoformat(),
        "command": " ".join(
            [f"lowmem-rl verify-resume --kills {kills} --seed {seed}", *(f"--set {one}" for one in settings)]
        ),
        "machine": environment_record(machine, device_on(machine, RunConfig())),
        **proof.to_json(),
    }


def render(proof: ResumeProof) -> str:
    """Returns the kills by their moments, the comparison, and the verdict."""
    moments = dict.fromkeys(kill.moment for kill in proof.kills)
    head = ("killed", "times", "steps done again", "checkpoints lost")
    rows = [_row(moment, [kill for kill in proof.kills if kill.moment == moment]) for moment in moments]
    return "\n".join(
        [
            *list_page().listing(head, [*rows, _row("in all", list(proof.kills))]),
            "",
            f"Resuming took {_range(proof.resume_seconds)} beyond loading; the whole {proof.seconds:.0f} s.",
            *(f"differs: {difference}" for difference in proof.differences),
            _verdict(proof),
        ]
    )


def _row(moment: str, kills: list[Kill]) -> tuple[str, ...]:
    again = sum(kill.step - kill.kept_step for kill in kills)
    return moment, str(len(kills)), str(again), str(sum(kill.is_checkpoint_lost for kill in kills))


def _range(seconds: tuple[float, ...]) -> str:
    return f"{min(seconds):.2f} to {max(seconds):.2f} s" if seconds else "no time"


def _verdict(proof: ResumeProof) -> str:
    if not proof.is_exact:
        return f"NOT exact: {len(proof.differences)} differences from the uninterrupted run of {proof.steps} steps."
    return (
        f"Exact: after {proof.steps} steps weights, optimizer, schedule and random states are the uninterrupted run's "
        "bit for bit, and so are\nits metric rows (except time and memory), samples, order and evaluations."
    )
