"""`lowmem-rl rewards list | check | score`."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lowmem_rl_cli import console
from lowmem_rl_cli.options import JsonOption, RunRequest, command_group

if TYPE_CHECKING:
    from lowmem_rl.config.run_config import RunConfig
    from lowmem_rl.errors import TaskError
    from lowmem_rl.rewards.adversarial_cases import RewardCase
    from lowmem_rl.rewards.reward import Reward, RewardSet
    from lowmem_rl.rewards.reward_finding import RewardFinding
    from lowmem_rl.rewards.score_rows import Record

app = command_group("List, check and apply rewards.")

_CHECKED_EXAMPLES = 16
"""Of a preset's task."""
_SHOWN_FAILURES = 20
"""Rows whose failure is shown by `score`."""


@app.command("list")
def list_rewards(as_json: JsonOption = False) -> None:
    """List the rewards: range, what they are for, what they pay."""
    from lowmem_rl.rewards.reward_registry import REWARDS, load_reward

    rewards = [load_reward(name) for name in REWARDS]
    facts = [
        {
            "name": r.name,
            "low": r.low,
            "high": r.high,
            "kind": r.kind,
            "needs_model": _needs_model(r),
            "pays": _about(r),
        }
        for r in rewards
    ]
    head = ("reward", "range", "kind", "needs", "pays")
    rows = [(r.name, f"{r.low:g}..{r.high:g}", r.kind, "model" if _needs_model(r) else "", _about(r)) for r in rewards]
    console.show_rows(facts, head, rows, as_json=as_json)


@app.command("check")
def check_rewards_command(
    reward: Annotated[
        list[str] | None,
        typer.Option("--reward", help="Reward to check, or FILE.py:NAME; repeatable.", metavar="NAME[=WEIGHT]"),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", help="Check under this preset's task, rewards and chat template.", metavar="NAME"),
    ] = None,
    zoo: Annotated[bool, typer.Option("--zoo", help="Try the check on known broken rewards, and on ours.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check rewards: the perfect completion must earn most, and nothing wrong as much."""
    if zoo:
        _show_zoo(as_json=as_json)
    elif preset is None:
        _check_separately(reward or [], as_json=as_json)
    else:
        _check_preset(preset, reward or [], as_json=as_json)


@app.command("score")
def score_rows(
    rows: Annotated[
        Path,
        typer.Argument(help="File of completions, one object per line, or a table; - is stdin.", metavar="ROWS.jsonl"),
    ],
    reward: Annotated[str, typer.Option("--reward", help="Reward to apply, or FILE.py:NAME.", metavar="NAME")],
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, help="Seconds that one score of FILE.py:NAME may take.")
    ] = 20.0,
) -> None:
    """Score a file of completions: print each row with its score.

    A row that cannot be scored is reported and left out; the command then ends with 6. The answer is taken out of a
    worked solution: after ####, from the last box, or after "answer is".
    """
    from lowmem_rl.rewards.isolated import isolated
    from lowmem_rl.rewards.reward_registry import load_reward_set
    from lowmem_rl.rewards.score_rows import score_records
    from lowmem_rl.tasks.gold_answer import find_answer
    from lowmem_rl.verify import late_verdicts

    failures, late_before = _Failures(), late_verdicts()
    with isolated(load_reward_set({reward: 1.0}), timeout) as loaded, _records_in(rows) as records:
        for row in score_records(records, loaded.rewards[0], failures.add, lambda gold: find_answer(gold).text):
            failures.scored += 1
            console.show(json.dumps(row, default=str))  # non-ASCII is escaped: valid JSON in any terminal encoding
    if late := late_verdicts() - late_before:
        counted = "1 verdict" if late == 1 else f"{late} verdicts"
        console.say(f'{counted} took too long and counted as wrong: see the rows with "late".')
    failures.refuse()


class _Failures:
    """Rows that were not scored: the first ones are shown as they come."""

    def __init__(self) -> None:
        self.scored, self.errors = 0, list["TaskError"]()

    def add(self, error: "TaskError") -> None:
        self.errors.append(error)
        if 1 < len(self.errors) <= _SHOWN_FAILURES:
            console.say(f"not scored: {error}")

    def refuse(self) -> None:
        """Raises the first failure, if any, after all rows are scored."""
        from lowmem_rl.errors import TaskError

        if self.errors:
            more = f" So {len(self.errors)} of {self.scored + len(self.errors)} rows were not scored."
            raise TaskError(f"{self.errors[0]}{more}", hint=self.errors[0].hint)


@contextmanager
def _records_in(path: Path) -> "Iterator[Iterable[Record]]":
    """Yields the rows of JSON Lines as they come, or of a file in another form that tasks read."""
    from lowmem_rl.errors import TaskError
    from lowmem_rl.rewards.score_rows import parse_lines, read_lines
    from lowmem_rl.tasks.files import read_files

    if str(path) == "-":
        yield parse_lines(read_lines(sys.stdin), "stdin")
        return
    if path.is_file() and {".json", ".csv", ".tsv", ".parquet", ".gz"} & set(path.suffixes):
        yield ((row.where, getattr(row, "fault", None) or row.values) for row in read_files([path]))
        return
    try:
        file = path.open(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise TaskError(f"Cannot read {str(path)!r}: {error}.", hint="Name a JSON Lines file.") from error
    with file:
        yield parse_lines(read_lines(file), path.name)


def _check_separately(names: list[str], *, as_json: bool) -> None:
    """Checks each reward alone on built-in problems, with and without an opened think tag."""
    from lowmem_rl.rewards.adversarial_cases import PREFILL, cases_for
    from lowmem_rl.rewards.reward_check import check_reward
    from lowmem_rl.rewards.reward_registry import REWARDS

    rewards = _weighted(names or list(REWARDS)).rewards
    findings = [_first(check_reward(r, cases_for(r.name), prefill) for prefill in ("", PREFILL)) for r in rewards]
    _report(rewards, [finding for found in findings for finding in found], as_json=as_json)


def _check_preset(preset: str, names: list[str], *, as_json: bool) -> None:
    """Checks a preset's rewards together, on its own task and chat template if these are on this disk."""
    from lowmem_rl.chat_templates.model_template import template_of_model
    from lowmem_rl.rewards.adversarial_cases import PREFILL
    from lowmem_rl.rewards.reward_check import check_rewards
    from lowmem_rl.rewards.reward_registry import load_reward_set

    config = RunRequest(preset).resolve().config
    rewards = _weighted(names) if names else load_reward_set(config.rewards)
    cases, template = _cases_of(config), template_of_model(config.model.name, config.model.revision)
    if template is None:
        console.say(f"The chat template of {config.model.name} is not on this disk: checked with and without <think>.")
    for note in template.notes() if template else ():
        console.say(f"note: {note}")
    prefills = (template.prefill,) if template else ("", PREFILL)
    _report(rewards.rewards, _first(check_rewards(rewards, cases, opening) for opening in prefills), as_json=as_json)


def _cases_of(config: "RunConfig") -> "tuple[RewardCase, ...]":
    from lowmem_rl.errors import SetupError
    from lowmem_rl.rewards.adversarial_cases import RewardCase, general_cases
    from lowmem_rl.tasks.select import draw_examples, gold_completion_of
    from lowmem_rl.tasks.task import Selection
    from lowmem_rl.tasks.task_registry import load_task

    try:
        task = load_task(config.task)
        selection = Selection("train", levels=config.task.levels, seed=config.seed)
        examples = draw_examples(task, selection, _CHECKED_EXAMPLES)
        return tuple(RewardCase(example, gold_completion_of(task, example)) for example in examples)
    except SetupError as error:
        console.say(f"{error} Checked on built-in problems instead.")
        return general_cases()


def _weighted(names: list[str]) -> "RewardSet":
    from lowmem_rl.errors import ConfigError
    from lowmem_rl.rewards.reward import RewardSet
    from lowmem_rl.rewards.reward_registry import load_reward

    pairs = [name.partition("=") for name in names]
    try:
        weights = tuple(float(weight or 1) for _, _, weight in pairs)
    except ValueError as error:
        raise ConfigError(f"--reward: {error}.", hint="Give it as NAME or NAME=WEIGHT.") from error
    if not all(map(isfinite, weights)):
        raise ConfigError("--reward: a weight is a finite number.", hint="Give it as NAME or NAME=WEIGHT.")
    return RewardSet(tuple(load_reward(name) for name, _, _ in pairs), weights)


def _first(checks: "Iterator[list[RewardFinding]]") -> "list[RewardFinding]":
    """Returns the findings of the first check that has errors, else notes: the same fault is reported once."""
    found = list(checks)
    with_errors = (findings for findings in found if any(one.level == "error" for one in findings))
    return next(with_errors, next(filter(None, found), []))


def _report(rewards: "tuple[Reward, ...]", findings: "list[RewardFinding]", *, as_json: bool) -> None:
    """Prints a verdict for each reward. Raises `RewardError` for findings, after they are printed."""
    from lowmem_rl.errors import RewardError

    if as_json:
        checked = [{"reward": r.name, "judged": _is_judged(r)} for r in rewards]
        console.show_json({"rewards": checked, "findings": [finding.to_json() for finding in findings]})
    else:
        verdicts = {r.name: "ok" if _is_judged(r) else f"runs; not checked: {r.kind}" for r in rewards}
        verdicts |= {r.name: "not checked: needs the loaded model" for r in rewards if _needs_model(r)}
        for name in [r.name for r in rewards] + ["all"] * any(finding.reward == "all" for finding in findings):
            own = _summaries([finding for finding in findings if finding.reward == name])
            console.show(f"{name:<22}  {'; '.join(own) or verdicts[name]}")
    if errors := [finding for finding in findings if finding.level == "error"]:
        broken = sorted({finding.reward for finding in errors})
        raise RewardError(f"{errors[0]} Faults in: {', '.join(broken)}.", hint=errors[0].fix)


def _show_zoo(*, as_json: bool) -> None:
    from lowmem_rl.rewards.adversarial_cases import PREFILL, cases_for
    from lowmem_rl.rewards.reward_check import check_reward
    from lowmem_rl.rewards.reward_registry import REWARDS, load_reward
    from lowmem_rl_bench.broken_rewards import check_zoo

    zoo = [
        {"reward": b.reward.name, "source": b.source, "story": b.story, "findings": _summaries(found)}
        for b, found in check_zoo()
    ]
    ours = [
        {"reward": r.name, "judged": _is_judged(r), "findings": [str(f) for f in check_reward(r, cases_for(r.name), p)]}
        for r in map(load_reward, REWARDS)
        for p in ("", PREFILL)
    ]
    caught, flagged = sum(bool(row["findings"]) for row in zoo), sum(bool(row["findings"]) for row in ours)
    if as_json:
        summary = {"broken": len(zoo), "caught": caught, "ours_flagged": flagged}
        console.show_json({"date": date.today().isoformat(), "summary": summary, "zoo": zoo, "ours": ours})
        return
    rows = [
        (str(row["reward"]), (row["findings"] or ["not caught"])[0].partition(":")[0], str(row["story"])) for row in zoo
    ]
    console.show_table(("broken reward", "fault", "story"), rows)
    console.show(f"{caught} of {len(zoo)} caught; {flagged} of ours flagged")


def _summaries(findings: "list[RewardFinding]") -> list[str]:
    notes = {"note": "note: ", "error": ""}
    return [f"{notes[finding.level]}{finding.fault}: {finding.what}" for finding in findings]


def _is_judged(reward: "Reward") -> bool:
    return reward.kind in ("merit", "unknown") and not _needs_model(reward)


def _needs_model(reward: "Reward") -> bool:
    from lowmem_rl.rewards.model_reward import ModelReward

    return isinstance(reward, ModelReward)


def _about(reward: "Reward") -> str:
    """Returns the first sentence of the reward's docstring."""
    from lowmem_rl.rewards.model_reward import ModelReward

    doc = (reward.bind.__doc__ if isinstance(reward, ModelReward) else reward.score.__doc__) or ""
    return " ".join(doc.split()).partition(". ")[0].rstrip(".")
