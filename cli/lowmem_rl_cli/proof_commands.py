"""`lowmem-rl verify-resume` and `lowmem-rl prove`: their options. They end with 1 if something does not hold."""

from pathlib import Path
from typing import Annotated

import typer

from lowmem_rl_cli.bench_command import check_writable
from lowmem_rl_cli.options import JsonOption, SetOption, option


def verify_resume(
    kills: Annotated[int, option("--kills", "SIGKILLs at random moments.", min=1, max=1000)] = 3,
    seed: Annotated[int, option("--seed", "Seed of those moments.")] = 0,
    setting: SetOption = None,
    as_json: JsonOption = False,
    out: Annotated[Path | None, option("--out", "File for the whole record, as JSON.", "FILE")] = None,
) -> None:
    """Prove that a run resumes exactly: kill and resume a tiny one, compare it with an uninterrupted one.

    The exit code is 1 if the two differ at the end. Weights are compared bit for bit; on a GPU, kernels that add in
    any order may differ by rounding.
    """
    from lowmem_rl_cli.verify_resume_command import verify_resume_command

    if out is not None:
        check_writable(out)
    if not verify_resume_command(kills, seed, setting or [], as_json=as_json, out=out):
        raise typer.Exit(1)


def prove(
    preset: Annotated[
        str | None, option("--preset", "Preset whose step is measured; unset, the one for this card.", "NAME")
    ] = None,
    out: Annotated[
        Path | None,
        option("--out", "File of the record; a new prove-CARD-DATE.json if unset.", "FILE"),
    ] = None,
    only: Annotated[
        list[str] | None, option("--only", "Run the checks whose names begin so; repeatable.", "CHECK")
    ] = None,
    quick: Annotated[
        bool, option("--quick", "Few steps, short rows of the embedded model: to see in minutes that all is ready.")
    ] = False,
    random_weights: Annotated[
        bool,
        option(
            "--random-weights",
            "If the preset's model is not on this disk, measure random numbers in its shape: they need no network "
            "and as much disk as the model, and are removed at the end.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Prove that lowmem-rl works on this machine's card, and write a record that you can send in.

    The main job in 4 and 16 bit, in bfloat16 and float16; our sampler against generate; a preset's memory by phase
    against the estimate; seconds a step against Unsloth's defaults; a real out-of-memory; resume after SIGKILL;
    export. Each check runs in processes of its own, within a time limit, without network. The exit code is 1 if one
    fails, 3 without a card.
    """
    from lowmem_rl_cli.prove_command import prove_command

    code = prove_command(preset, out, only or [], quick=quick, random_weights=random_weights, as_json=as_json)
    if code:
        raise typer.Exit(code)
