"""`lowmem-rl tasks`: the tasks, and whether one is fit for training."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lowmem_rl.errors import TaskError
from lowmem_rl_cli import console
from lowmem_rl_cli.options import (
    AllowCodeOption,
    ConfigOption,
    JsonOption,
    RewardOption,
    RunRequest,
    SetOption,
    command_group,
    option,
)

if TYPE_CHECKING:
    from lowmem_rl.config.run_config import RunConfig
    from lowmem_rl.tasks.task_check import TaskReport

_MOST_LEVELS = 20
"""That a report shows one by one."""

app = command_group("List, show and check tasks.")

NameArgument = Annotated[str, typer.Argument(help="A name from `tasks list`, or FILE.py:CLASS.", metavar="NAME")]


@app.command("list")
def list_tasks(as_json: JsonOption = False) -> None:
    """List the tasks, their data, levels and rewards."""
    from lowmem_rl.tasks.task_registry import TASKS

    facts = [_facts(name) for name in TASKS]
    head = ("task", "data", "levels", "graded by", "summary")
    rows = [
        (f["name"], f["source"].partition(",")[0], _span(f["levels"]), f["rewards"][0], f["summary"]) for f in facts
    ]
    console.show_rows(facts, head, rows, as_json=as_json)


@app.command("show")
def show_task(name: NameArgument, as_json: JsonOption = False) -> None:
    """Show a task: its data, its prompt and rewards, and an example if it generates its problems."""
    facts = _facts(name)
    facts["example"] = None if facts["has_data"] else _example(name, facts["prompt"])
    if as_json:
        console.show_json(facts)
    else:
        console.show("\n".join(_page(facts)))


@app.command("check")
def check_task(
    name: NameArgument,
    preset: Annotated[
        str | None, option("--preset", "Check under this preset's prompt, rewards and tokenizer.", "NAME")
    ] = None,
    config: ConfigOption = None,
    setting: SetOption = None,
    reward: RewardOption = None,
    examples: Annotated[int, option("--examples", "Gold answers of each split that are scored.", min=1)] = 1000,
    as_json: JsonOption = False,
    allow_code: AllowCodeOption = False,
) -> None:
    """Check golds, splits, duplicates and lengths of a task, without a model.

    Prompt and rewards are the task's own unless a preset, file or option names others. The exit code is 6 if a
    finding prevents training.
    """
    from lowmem_rl.chat_templates.model_template import template_of_model
    from lowmem_rl.rewards.reward_registry import load_reward_set
    from lowmem_rl.tasks.lengths import estimate_tokens, exact_counter
    from lowmem_rl.tasks.task_check import CheckLimits, check_task
    from lowmem_rl.tasks.task_registry import load_task

    files, settings, rewards = tuple(config or ()), tuple(setting or ()), tuple(reward or ())
    request = RunRequest(preset, files, settings, name, rewards, allow_code=allow_code)
    run, model = _checked_run(request)
    count = exact_counter(model, run.model.revision) if model else None
    template = template_of_model(model, run.model.revision) if model else None
    for note in template.notes() if template else ():
        console.say(f"note: {note}")
    limits = CheckLimits(examples, run.grpo.max_prompt_tokens, run.task.levels, run.seed)
    paid, counter = load_reward_set(run.rewards), count or estimate_tokens
    report = check_task(load_task(run.task), paid, limits, counter, exact=count is not None)
    if as_json:
        console.show_json(report.to_json())
    else:
        console.show("\n".join(_report(report)))
    _check_fit(name, len(report.errors))


def _check_fit(name: str, number: int) -> None:
    """Raises `TaskError` if a finding prevents training."""
    if number:
        findings = "one finding is an error" if number == 1 else f"{number} findings are errors"
        what = f"Task {name!r} is not fit for training: {findings}."
        raise TaskError(what, hint="Each line that begins with `error` ends with its fix.")


def _checked_run(request: RunRequest) -> "tuple[RunConfig, str | None]":
    """Returns the run that is checked, and its model if the user named one.

    Without a preset, files and options are over the task's own prompt and rewards, and those over the defaults.
    """
    from lowmem_rl.config.compose import ConfigLayer, defaults, merge, read_assignments, read_config_file, validate
    from lowmem_rl.config.user_code import check_allowed

    if request.preset is not None:
        run = request.resolve().config
        return run, run.model.name
    files = map(read_config_file, request.config_files)
    layers = [*files, read_assignments("--set", request.settings), *request.flag_layers()]
    own = _facts(str(request.task))
    wanted = {"task.prompt": own["prompt"]} | {f"rewards.{name}": 1.0 for name in own["rewards"]}
    fitting = ConfigLayer("the task", wanted, replaces_rewards=bool(own["rewards"]))
    merged = merge([defaults(), fitting, *layers])
    run = validate(merged, [problem for layer in layers for problem in layer.problems])
    check_allowed({name: merged[f"rewards.{name}"].origin for name in run.rewards}, allow_code=request.allow_code)
    return run, None if merged["model.name"].origin == "default" else run.model.name


def _facts(name: str) -> dict[str, Any]:
    """Returns a task's description of itself; a user's own may lack parts."""
    from lowmem_rl.tasks.task_registry import load_task_class

    constructor = load_task_class(name)
    has_data = getattr(constructor, "has_data", False)
    return {
        "name": name,
        "summary": getattr(constructor, "summary", ""),
        "source": getattr(constructor, "source", "your own" if has_data else "generated"),
        "has_data": has_data,
        "held_out": getattr(constructor, "held_out", ""),
        "levels": list(getattr(constructor, "levels", ())),
        "rewards": list(getattr(constructor, "rewards", ())),
        "prompt": getattr(constructor, "convention", "think_boxed"),
    }


def _example(name: str, prompt: str) -> dict[str, Any]:
    """Returns one held-out example of a task without data."""
    from lowmem_rl.config.run_config import TaskConfig
    from lowmem_rl.tasks.select import draw_examples, gold_completion_of
    from lowmem_rl.tasks.task import Selection
    from lowmem_rl.tasks.task_registry import load_task

    task = load_task(TaskConfig(name=name, prompt=prompt))
    example = draw_examples(task, Selection("test", 1), 1)[0]
    return {
        "id": example.id,
        "prompt": list(example.prompt),
        "answer": example.answer,
        "level": example.level,
        "gold_completion": gold_completion_of(task, example),
    }


def _page(facts: dict[str, Any]) -> Iterator[str]:
    yield facts["name"]
    if facts["summary"]:
        yield f"  {facts['summary']}"
    yield ""
    yield f"  data     {facts['source']}"
    if facts["held_out"]:
        yield f"  test     {facts['held_out']}"
    yield f"  levels   {_span(facts['levels']) or 'none'}"
    yield f"  prompt   {facts['prompt']}"
    if facts["rewards"]:
        yield f"  rewards  {', '.join(facts['rewards'])}"
    if example := facts["example"]:
        turns = [(turn["role"], turn["content"]) for turn in example["prompt"]]
        for role, text in [*turns, ("perfect completion", example["gold_completion"])]:
            yield f"\n  {role}"
            yield from (f"    {line}" for line in text.splitlines())


def _report(report: "TaskReport") -> Iterator[str]:
    lengths, (answer, share) = report.lengths, report.commonest_answer
    train, test = report.examples["train"], report.examples["test"]
    yield f"{report.task}: {train} train, {test} test; {report.golds} golds scored"
    yield f"rewards  {', '.join(report.rewards)}"
    about = "" if lengths.exact else "about "
    yield f"prompts  {about}{lengths.median} tokens, the longest {about}{lengths.longest}; the limit is {lengths.limit}"
    if answer:
        yield f"answers  the commonest is {answer!r:.40}: {100 * share:.1f} %"
    if len(report.levels) > _MOST_LEVELS:
        yield f"levels   {len(report.levels)} from {min(report.levels):g} to {max(report.levels):g}"
    else:
        yield from (f"level {level:<5g} {count}" for level, count in report.levels.items())
    for finding in report.findings:
        yield f"{finding.level}: {finding.what}. {finding.fix}"
    if not report.findings:
        yield "Nothing is wrong."


def _span(levels: list[int]) -> str:
    return f"{levels[0]} to {levels[-1]}" if levels else ""
