"""README.md of an export: a model card with the run's own numbers, and how to use the files."""

import json
from collections.abc import Iterator
from pathlib import Path

from lowmem_rl._version import __version__
from lowmem_rl.config.layer_choice import text_of
from lowmem_rl.config.places import without_folder
from lowmem_rl.export.export_spec import ExportSpec
from lowmem_rl.export.proof import MAX_ACCURACY_LOSS, Proof
from lowmem_rl.reports.compare import paired_difference
from lowmem_rl.reports.escape import one_line, p_text, percent, points
from lowmem_rl.reports.run_record import LENIENT, STRICT, EvalRecord, RunRecord
from lowmem_rl.reports.sections.reproduce import command_of
from lowmem_rl.reports.sections.stages import sentence_of

_FACTS = {
    "task": "task.name",
    "prompt convention": "task.prompt",
    "steps": "grpo.steps",
    "group size": "grpo.group_size",
    "prompts a step": "grpo.prompts_per_step",
    "longest completion, tokens": "grpo.max_completion_tokens",
    "rewards": "rewards",
    "learning rate": "optimizer.learning_rate",
    "what learns": "trainable.method",
    "layers that learn": "trainable.layers",
    "adapter rank": "adapter.rank",
    "frozen weights, bits": "model.bits",
    "seed": "seed",
}
"""What a reader looks for first, by config key; the rest is in the command."""


def render_card(record: RunRecord, spec: ExportSpec, proof: Proof, *, of_best: bool = False) -> str:
    """Returns the card of a run's last adapter, or of its best. What a run wrote is shown as text, never as markup."""
    evaluation = record.best if of_best else record.latest
    return "\n".join(
        [
            "---",  # the front matter that model hubs read; its values are JSON, which is YAML
            *([f"base_model: {json.dumps(spec.hub_name)}"] if spec.hub_name else []),
            f"library_name: {'peft' if spec.to == 'adapter' else 'transformers'}",
            "pipeline_tag: text-generation",
            "tags: [grpo, reinforcement-learning, lowmem-rl]",
            "---",
            f"# {_code(spec.base_name)} trained on {_code(_shown(record.setting('task.name')))} with GRPO",
            "",
            f"{spec.what}. Trained by lowmem-rl {__version__}.",
            *("", "## Results", "", *_results(record, evaluation, of_best=of_best)),
            *("", "## Proof", "", *_proof(spec, proof)),
            *("", "## Use", "", spec.usage),
            *("", "## Training", "", *_training(record, evaluation if of_best else None)),
        ]
    )


def _results(record: RunRecord, latest: EvalRecord | None, *, of_best: bool) -> Iterator[str]:
    before = record.before
    if latest is None:
        yield "This run was not evaluated after training: nothing is known of what it learned."
        return
    is_untrained = latest is before
    if of_best:
        chosen = "These weights were chosen as the best of several evaluations: on other items expect less."
        same = "No evaluation was better than the one before training: these weights answer as the base model does."
        yield from (same if is_untrained else chosen, "")
    yield "Greedy answers to held-out items, with 95 % intervals."
    yield from (
        "",
        "| | step | items | right, in any format | right, in the requested format |",
        "|---|---|---|---|---|",
    )
    yield from (_row(evaluation) for evaluation in (before, latest)[is_untrained:] if evaluation)
    if before and not is_untrained and (gain := paired_difference(before, latest, LENIENT)):
        yield from ("", f"Gain, the same items paired: {points(gain)}, {p_text(gain.p_value)}.")
        if strict := paired_difference(before, latest, STRICT):
            yield f"In the requested format: {points(strict)}, {p_text(strict.p_value)}."
        if not gain.is_distinguishable:
            yield "Chance alone can explain such a difference."


def _row(evaluation: EvalRecord) -> str:
    result, cells = evaluation.result, ["before" if evaluation.name == "before" else "after", str(evaluation.step)]
    cells.append(str(result.get("num_examples", "-")))
    for key in ("pass_at_1", "strict_pass_at_1"):
        interval = result.get(f"{key}_interval") or {}
        cells.append(f"{percent(result.get(key))} [{percent(interval.get('low'))}, {percent(interval.get('high'))}]")
    return f"| {' | '.join(cells)} |"


def _proof(spec: ExportSpec, proof: Proof) -> Iterator[str]:
    reloaded = f"These files were loaded again from disk by {spec.loaded_by}"
    rounded = f", whose whole weights were rounded to {spec.rounded_to} as here" if spec.rounded_to else ""
    yield f"{reloaded}, and given the same prompts as the trained model{rounded}."
    yield from ("", f"- {proof.agreement}", f"- {proof.rightness}", "")
    if proof.kind == "tokens":
        yield "What decides is the first: these are the weights that were trained."
    else:
        rule = f"distinguishably worse, and surely by no more than {100 * MAX_ACCURACY_LOSS:.0f} points."
        yield f"What decides is the second: these are not the weights that were trained. Accepted is what is not {rule}"
    yield "`proof.json` holds the figures."


def _training(record: RunRecord, chosen: EvalRecord | None) -> Iterator[str]:
    yield from ("| | |", "|---|---|")
    has_rank = record.setting("trainable.method") != "full" and record.setting("adapter.peft_type") != "tinylora"
    for label, key in _FACTS.items():
        if key == "adapter.rank" and not has_rank:
            continue
        value = record.setting(key)
        if record.selection and key == "trainable.layers":
            value = f"{text_of(record.selection.layers)}, selected by {record.selection.by}"
        yield f"| {label} | {_code(_shown(value))} |"
    yield f"| steps taken | {f'{chosen.step} of {record.last_step}' if chosen else record.last_step} |"
    versions = record.machine.get("versions")
    if isinstance(versions, dict):
        named = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
        yield f"| versions | {_code(named, 400)} |"
    yield f"| device | {_code(record.machine.get('gpu') or record.machine.get('device') or 'unknown')} |"
    if record.lineage:
        yield from ("", "Stages before this run, oldest first:", "")
        yield from (f"{number}. {_code(sentence_of(stage))}" for number, stage in enumerate(record.lineage, start=1))
    yield from ("", "The same run again:", "", "```", one_line(_command(record).replace("`", "'"), 4000), "```", "")


def _command(record: RunRecord) -> str:
    """Returns the run's command, without the folders of this machine that its model and its start are in."""
    text = command_of(record)
    for folder in filter(None, (record.setting("model.name"), record.setting("start_from"))):
        text = text.replace(folder, Path(folder).name) if Path(folder).is_absolute() else text
    return text


def _shown(value: object) -> str:
    """Returns a setting as text, without the folders of this machine."""
    if isinstance(value, dict):
        value = {without_folder(name): part for name, part in value.items()}
    return without_folder(value) if isinstance(value, str) else json.dumps(value)


def _code(value: object, longest: int = 200) -> str:
    """Returns a value as a span of code, in which Markdown and HTML mean nothing, also in a table."""
    text = one_line(value, longest).replace("`", "'").replace("|", "¦")
    return f"`{text or ' '}`"
