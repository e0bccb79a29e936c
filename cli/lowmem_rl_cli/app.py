"""The app: the options of each command, and the exit codes.

Only the parts that parse the command line are imported here; some commands have theirs in a module of their own. What
runs a command, and the library it uses, is imported when the command runs.
"""

import json
import os
import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from lowmem_rl import __version__
from lowmem_rl.errors import LowMemError
from lowmem_rl_cli import (
    bench_command,
    console,
    experiment_command,
    export_command,
    failures,
    presets_command,
    proof_commands,
    rewards_command,
    scale_out_command,
    streams,
    tasks_command,
)
from lowmem_rl_cli.options import (
    AllowCodeOption,
    CardOption,
    ConfigOption,
    FromOption,
    JsonOption,
    ModelOption,
    MovedModelOption,
    OutOption,
    PassRateOption,
    PresetOption,
    RewardOption,
    RunArgument,
    RunRequest,
    SeedOption,
    SetOption,
    StepsOption,
    TaskOption,
    VramOption,
    option,
)

_HOME = re.compile(r"(--(?!prompt=)[\w-]+=)?(~.*)", re.DOTALL)
PriceOption = Annotated[
    float | None, option("--price", "Price of an hour of the card; a published one if left out.", "X")
]
GoalOption = Annotated[
    float | None, option("--goal", "Accuracy in training: print when and for how much, if known.", min=0.01, max=0.99)
]
# Plain help pages: they are the same in a pipe, and rich alone would double the time to print one.
app = typer.Typer(name="lowmem-rl", rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def root(context: typer.Context, version: Annotated[bool, option("--version", "Print the version.")] = False) -> None:
    """GRPO on one GPU: will it fit, will it carry signal, did it learn."""
    if version:
        console.show(f"lowmem-rl {__version__}")
    elif context.invoked_subcommand is None:
        console.show(context.get_help())


@app.command()
def doctor(
    run: Annotated[Path | None, typer.Argument(help="Run directory to audit instead.", metavar="[RUN]")] = None,
    fix: Annotated[bool, option("--fix", "Print the commands that fix this machine; run none.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check whether this machine is ready, or audit a run.

    The audit reads the run's files, also while it is running; nothing is written. Findings are not a failure of the
    command: the exit code is 0, and 7 if RUN is not a run directory.
    """
    if run is not None:
        from lowmem_rl_cli.health_command import health_command

        health_command(run, as_json=as_json)
        return
    from lowmem_rl_cli.doctor_command import doctor_command

    doctor_command(as_json=as_json, fix=fix)


@app.command()
def profile(
    preset: PresetOption = None,
    config: ConfigOption = None,
    setting: SetOption = None,
    model: ModelOption = None,
    card: CardOption = None,
    vram: VramOption = None,
    pass_rate: PassRateOption = None,
    price: PriceOption = None,
    goal: GoalOption = None,
    score: Annotated[Path | None, option("--score", "Compare the estimate with measured rows.", "ROWS.json")] = None,
    measure: Annotated[bool, option("--measure", "Take one real step, the longest possible, and compare.")] = False,
    as_json: JsonOption = False,
    verbose: Annotated[bool, option("--verbose", "Show the terms of every phase, with formulas.")] = False,
) -> None:
    """Predict whether a run fits and carries signal, without a GPU.

    The exit code is 0 for every verdict. `train` refuses with 4 or 8.
    """
    from lowmem_rl_cli.profile_command import profile_command, score_command

    files, settings = tuple(config or ()), tuple(setting or ())
    # The user's code runs only if a step is taken, so only then does it need --allow-code.
    request = RunRequest(preset, files, settings, model=model, pass_rate=pass_rate, allow_code=not measure, goal=goal)
    if measure:
        if (card, vram, pass_rate, price, goal, score, verbose) != (None, None, None, None, None, None, False):
            others = "--card, --vram, --pass-rate, --price, --goal, --score, --verbose"
            raise typer.BadParameter(f"--measure is about this machine's memory and excludes {others}")
        from lowmem_rl_cli.measure_command import measure_command

        measure_command(request, as_json)
        return
    if score is None:
        profile_command(request, card=card, vram=vram, price=price, as_json=as_json, verbose=verbose)
        return
    if request != RunRequest(allow_code=True) or (card, vram, price, verbose) != (None, None, None, False):
        raise typer.BadParameter("--score excludes other options: each row names its own run and card")
    score_command(score, as_json=as_json)


@app.command()
def train(
    preset: PresetOption = None,
    config: ConfigOption = None,
    setting: SetOption = None,
    model: ModelOption = None,
    start: FromOption = None,
    task: TaskOption = None,
    reward: RewardOption = None,
    out: OutOption = None,
    steps: StepsOption = None,
    seed: SeedOption = None,
    pass_rate: PassRateOption = None,
    resume: Annotated[bool, option("--resume", "Continue the run in --out exactly from where it stopped.")] = False,
    dry_run: Annotated[bool, option("--dry-run", "Check all that is on this disk, show all, train nothing.")] = False,
    as_json: JsonOption = False,
    force: Annotated[bool, option("--force", "Start although it does not fit or carries no signal.")] = False,
    controls: Annotated[
        bool, option("--controls", "Then run short controls by chance and by format, and report their gains.")
    ] = False,
    allow_code: AllowCodeOption = False,
) -> None:
    """Train a model, evaluate it before and after.

    Ctrl-C, SIGTERM and SIGUSR1 save and end it with 130, a second Ctrl-C ends it at once. A run that ended early for
    any reason continues with `train --resume --out DIR`; it reads its configuration there. With --steps a finished run
    takes more steps; --model, --from, --task, --reward or --set name a file again that has moved.

    With --from the adapter decides base, rank and targets, and without --preset the preset of its run is taken. A
    merged folder becomes the base, under a fresh adapter.
    """
    from lowmem_rl_cli.train_command import resume_command, train_command

    files, settings, rewards = tuple(config or ()), tuple(setting or ()), tuple(reward or ())
    request = RunRequest(preset, files, settings, task, rewards, out, steps, seed, allow_code, model, pass_rate, start)
    if not resume:
        train_command(request, dry_run=dry_run, as_json=as_json, force=force, controls=controls)
        return
    if out is None or dry_run or pass_rate is not None:
        raise typer.BadParameter("--resume needs --out, the run's directory, and excludes --dry-run and --pass-rate")
    resume_command(request, out, as_json=as_json, force=force, controls=controls)


@app.command()
def probe(
    preset: PresetOption = None,
    config: ConfigOption = None,
    setting: SetOption = None,
    start: FromOption = None,
    task: TaskOption = None,
    examples: Annotated[int, option("--examples", "Training examples to sample.", min=1)] = 64,
    samples: Annotated[int, option("--samples", "Completions of each example.", min=1)] = 8,
    out: Annotated[Path | None, option("--out", "File for the counts; runs/probe-PRESET-TIME.json if unset.")] = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
    allow_code: AllowCodeOption = False,
) -> None:
    """Measure the pass rate before training, and what it means for the group size.

    With --from it is the pass rate of that start, as `train --from` would begin.
    """
    from lowmem_rl_cli.probe_command import probe_command

    files, settings = tuple(config or ()), tuple(setting or ())
    request = RunRequest(preset, files, settings, task, seed=seed, allow_code=allow_code, start=start)
    probe_command(request, examples=examples, samples=samples, out=out, as_json=as_json)


@app.command()
def warmup(
    preset: PresetOption = None,
    config: ConfigOption = None,
    setting: SetOption = None,
    model: ModelOption = None,
    start: FromOption = None,
    task: TaskOption = None,
    out: Annotated[
        Path | None, option("--out", "Folder of the adapter; runs/warmup-PRESET-TIME if unset.", "DIR")
    ] = None,
    steps: Annotated[int, option("--steps", "Optimizer steps, of 32 gold completions each.", min=1)] = 50,
    learning_rate: Annotated[
        float | None, option("--learning-rate", "Peak learning rate of this stage; 2e-4 if unset.", "X", min=0, max=1)
    ] = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
    force: Annotated[bool, option("--force", "Start although it does not fit.")] = False,
    allow_code: AllowCodeOption = False,
) -> None:
    """Teach an adapter gold completions of the task, for a model that never earns a reward.

    SFT through TRL on training examples: a few dozen steps for the form of an answer. `train --from` and
    `probe --from` start from the adapter.
    """
    from lowmem_rl_cli.warmup_command import warmup_command

    files, settings = tuple(config or ()), tuple(setting or ())
    request = RunRequest(
        preset, files, settings, task, out=out, seed=seed, allow_code=allow_code, model=model, start=start
    )
    warmup_command(request, steps=steps, learning_rate=learning_rate, force=force, as_json=as_json)


@app.command("eval")
def evaluate(
    target: Annotated[
        str,
        typer.Argument(
            help="Run directory, adapter folder (RUN/best), model folder or name, `tiny`.", metavar="RUN|MODEL"
        ),
    ],
    task: Annotated[
        list[str] | None, option("--task", "Task to evaluate; repeatable; unset, those of the run or preset.", "NAME")
    ] = None,
    examples: Annotated[
        int | None, option("--examples", "Held-out examples of each task; sets eval.examples.", min=1)
    ] = None,
    samples: Annotated[
        int | None, option("--samples", "Completions sampled of each, for pass@k; sets eval.samples.", min=0)
    ] = None,
    preset: Annotated[
        str | None, option("--preset", "Preset with the settings for a model without a run.", "NAME")
    ] = None,
    setting: SetOption = None,
    model: MovedModelOption = None,
    out: Annotated[
        Path | None, option("--out", "Folder for the answers; the run's own, or runs/eval-MODEL-TIME.", "DIR")
    ] = None,
    as_json: JsonOption = False,
    allow_code: AllowCodeOption = False,
) -> None:
    """Evaluate a run, an adapter or a model on held-out problems.

    Finished answers are kept: after an interruption the same command continues, and with more examples or samples it
    only adds those. All tasks use the prompt of the run or preset.
    """
    from lowmem_rl_cli.eval_command import eval_command

    named = {"eval.examples": examples, "eval.samples": samples, "model.name": model}
    flags = [f"{key}={json.dumps(value)}" for key, value in named.items() if value is not None]
    settings = (*(setting or ()), *flags)
    eval_command(
        target, tasks=task or (), preset=preset, settings=settings, out=out, allow_code=allow_code, as_json=as_json
    )


@app.command()
def report(
    run: RunArgument,
    out: Annotated[Path | None, option("--out", "File to write; report.html in RUN if unset.", "FILE")] = None,
    png: Annotated[bool, option("--png", "Draw a picture for a slide instead: report.png.")] = False,
    follow: Annotated[
        bool, option("--follow", "Serve the page to this machine, and update it during the run.")
    ] = False,
    port: Annotated[
        int | None, option("--port", "Port for --follow; a free one if unset.", "N", min=1, max=65535)
    ] = None,
    goal: Annotated[
        float | None, option("--goal", "Accuracy in training: report when the run will reach it.", min=0.01, max=0.99)
    ] = None,
    price: Annotated[
        float | None, option("--price-per-hour", "Price of an hour of the card, for --goal.", min=0)
    ] = None,
) -> None:
    """Write one offline HTML file about a run, also if it stopped half-way or is running.

    With --follow nothing is written before the run ends; Ctrl-C stops it at any time.
    """
    from lowmem_rl_cli.report_command import follow_command, report_command

    if not follow and port is not None:
        raise typer.BadParameter("--port needs --follow")
    if not follow:
        report_command(run, out, png=png, goal=goal, price=price)
        return
    if png or out is not None:
        raise typer.BadParameter("--follow excludes --out and --png")
    follow_command(run, port)


@app.command()
def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Run directories; each is compared with the first.", metavar="RUN RUN...")
    ],
    out: Annotated[Path | None, option("--out", "Write a page with learning curves to this file.", "FILE")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare runs of one task item by item, and report which differences are significant."""
    from lowmem_rl_cli.compare_command import compare_command

    compare_command(runs, out, as_json=as_json)


@app.command()
def samples(
    run: RunArgument,
    score: Annotated[
        list[str] | None,
        option("--score", "Score it must have, such as 'boxed_answer<1' or 'reward>=1.2'; repeatable.", "NAME<VALUE"),
    ] = None,
    step: Annotated[str | None, option("--step", "Step or range of steps, such as 10-40.", "N")] = None,
    truncated: Annotated[
        bool | None, option("--truncated/--whole", "Only completions that were cut off, or were not.")
    ] = None,
    side_by_side: Annotated[
        bool, option("--side-by-side", "The best and the worst completion of each prompt.")
    ] = False,
    limit: Annotated[int, option("--limit", "How many to show.", min=1)] = 8,
    prompt: Annotated[
        str | None, option("--prompt", "Ask the trained model this instead; RUN/best asks the best.", "TEXT")
    ] = None,
    sampled: Annotated[
        int | None,
        option("--sampled", "With --prompt: completions with the run's sampling settings, not the greedy one.", min=1),
    ] = None,
    model: MovedModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the model wrote in training, the latest first; with --prompt, what it says now."""
    from lowmem_rl.reports.sample_filter import SampleFilter, read_condition, read_steps
    from lowmem_rl_cli.samples_command import prompt_command, samples_command

    if prompt is not None:
        if (score, step, truncated, side_by_side) != (None, None, None, False):
            others = "--score, --step, --truncated, --side-by-side"
            raise typer.BadParameter(f"--prompt asks the model and excludes {others}")
        prompt_command(run, prompt, samples=sampled, places=RunRequest(model=model).named_layers(), as_json=as_json)
        return
    if sampled is not None or model is not None:
        raise typer.BadParameter("--sampled and --model need --prompt")

    conditions = tuple(read_condition(text) for text in score or ())
    wanted = SampleFilter(conditions, None if step is None else read_steps(step), truncated)
    samples_command(run, wanted, limit=limit, side_by_side=side_by_side, as_json=as_json)


app.command("verify-resume")(proof_commands.verify_resume)
app.command("prove")(proof_commands.prove)
app.command("export")(export_command.export_command)
app.command("scale-out")(scale_out_command.scale_out_command)
app.add_typer(bench_command.app, name="bench")
app.add_typer(experiment_command.app, name="experiment")
app.add_typer(presets_command.app, name="presets")
app.add_typer(rewards_command.app, name="rewards")
app.add_typer(tasks_command.app, name="tasks")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code; a bug raises with its traceback."""
    streams.prepare()
    # Looking for Pydantic's plugins reads the metadata of every installed package.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        given = expand_home(sys.argv[1:] if arguments is None else arguments)
        code = _command()(given, prog_name="lowmem-rl", standalone_mode=False)
        sys.stdout.flush()
        return code or 0
    except KeyboardInterrupt:
        return 130
    except (LowMemError, typer.TyperException, ImportError, OSError, RuntimeError, SystemExit) as error:
        if streams.lost_reader(error):
            return 0
        if (reported := failures.reported(error)) is None:
            raise
        message, hint, exit_code = reported
        console.tell_error(message, hint)
        return exit_code
    finally:
        streams.abandon_broken()


@cache
def _command() -> Any:
    """Returns the tree of commands, which is made from all signatures: once, for programs that call `main` again."""
    return typer.main.get_command(app)


def expand_home(arguments: Sequence[str]) -> list[str]:
    """Returns arguments with `~` for the home directory, which no shell expands in --out=~/x; a prompt is a text."""
    found = [(text, _HOME.fullmatch(text), before) for before, text in zip(["", *arguments], arguments, strict=False)]
    return [
        f"{home[1] or ''}{os.path.expanduser(home[2])}" if home and before != "--prompt" else text
        for text, home, before in found
    ]
