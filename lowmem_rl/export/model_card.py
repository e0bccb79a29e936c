"""README.md of an export: a model card with the run's own numbers, and how to use the files."""

import json
from collections.abc import Iterator
from typing import Any

from lowmem_rl._version import __version__
from lowmem_rl.export.export_spec import ExportSpec
from lowmem_rl.export.proof import MOST_LOST, Proof
from lowmem_rl.reports.compare import paired_difference
from lowmem_rl.reports.escape import one_line, p_text, percent, points
from lowmem_rl.reports.run_record import LENIENT, STRICT, EvalRecord, RunRecord
from lowmem_rl.reports.sections.reproduce import command_of

FACTS = {
    "task": "task.name",
    "prompt convention": "task.prompt",
    "steps": "grpo.steps",
    "group size": "grpo.group_size",
    "prompts a step": "grpo.prompts_per_step",
    "longest completion, tokens": "grpo.max_completion_tokens",
    "rewards": "rewards",
    "learning rate": "optimizer.learning_rate",
    "adapter rank": "adapter.rank",
    "frozen weights, bits": "model.bits",
    "seed": "seed",
}
"""What a reader looks for first, by the key that holds it; the rest is in the command."""

CHOSEN = "These weights were chosen as the best of several evaluations: on other items expect less."
UNTRAINED = "No evaluation was better than the one before training: these weights answer as the base model does."


def card_of(record: RunRecord, form: ExportSpec, proof: Proof, *, of_best: bool = False) -> str:
    """Returns the card of a run's last adapter, or of its best. What a run says is shown as text, never as markup."""
    evaluation = record.best if of_best else record.latest
    return "\n".join(
        [
            *_head(form),
            *_title(record, form),
            *_results(record, evaluation, of_best=of_best),
            *_proof(form, proof),
            *_use(form),
            *_training(record, evaluation if of_best else None),
        ]
    )


def _head(form: ExportSpec) -> Iterator[str]:
    """Yields the front matter that model hubs read; its values are JSON, which is YAML."""
    yield "---"
    if form.hub_name:
        yield f"base_model: {json.dumps(form.hub_name)}"
    yield f"library_name: {'peft' if form.to == 'adapter' else 'transformers'}"
    yield "pipeline_tag: text-generation"
    yield "tags: [grpo, reinforcement-learning, lowmem-rl]"
    yield "---"


def _title(record: RunRecord, form: ExportSpec) -> Iterator[str]:
    yield f"# {code(form.base_name)} trained on {code(record.setting('task.name'))} with GRPO"
    yield ""
    yield f"{form.what}. Trained by lowmem-rl {__version__}."


def _results(record: RunRecord, latest: EvalRecord | None, *, of_best: bool) -> Iterator[str]:
    yield from ("", "## Results", "")
    before = record.before
    if latest is None:
        yield "This run was not evaluated after training: nothing is known of what it learnt."
        return
    is_untrained = latest is before
    if of_best:
        yield UNTRAINED if is_untrained else CHOSEN
        yield ""
    yield "Greedy answers to held-out items, with 95 % intervals."
    yield from ("", "| | step | items | right, wherever the answer stands | right, in the asked form |")
    yield "|---|---|---|---|---|"
    yield from (_row(evaluation) for evaluation in (before, latest)[is_untrained:] if evaluation)
    if before and not is_untrained and (gain := paired_difference(before, latest, LENIENT)):
        strict = paired_difference(before, latest, STRICT)
        yield ""
        yield f"Gain, the same items paired: {points(gain)}, {p_text(gain.p_value)}."
        if strict:
            yield f"In the asked form: {points(strict)}, {p_text(strict.p_value)}."
        if not gain.is_distinguishable:
            yield "Chance alone makes such differences."


def _row(evaluation: EvalRecord) -> str:
    result = evaluation.result
    name = "before" if evaluation.name == "before" else "after"
    shares = (_share(result, key) for key in ("pass_at_1", "strict_pass_at_1"))
    return f"| {name} | {evaluation.step} | {result.get('num_examples', '-')} | {' | '.join(shares)} |"


def _share(result: dict[str, Any], key: str) -> str:
    interval = result.get(f"{key}_interval") or {}
    return f"{percent(result.get(key))} [{percent(interval.get('low'))}, {percent(interval.get('high'))}]"


def _proof(form: ExportSpec, proof: Proof) -> Iterator[str]:
    yield from ("", "## Proof", "")
    yield f"These files were loaded again from disk by {form.loaded_by}, and asked what the trained model was asked."
    yield from ("", f"- {proof.agreement}", f"- {proof.rightness}", "")
    if proof.kind == "tokens":
        yield "What decides is the first: these are the weights that were trained."
    else:
        yield (
            "What decides is the second: these are not the weights that were trained. Accepted is what is not "
            f"distinguishably worse, and surely by no more than {100 * MOST_LOST:.0f} points."
        )
    yield "`proof.json` holds the figures."


def _use(form: ExportSpec) -> Iterator[str]:
    yield from ("", "## Use", "")
    yield from form.usage


def _training(record: RunRecord, chosen: EvalRecord | None) -> Iterator[str]:
    yield from ("", "## Training", "", "| | |", "|---|---|")
    for label, key in FACTS.items():
        value = record.setting(key)
        yield f"| {label} | {code(value if isinstance(value, str) else json.dumps(value))} |"
    yield f"| steps taken | {f'{chosen.step} of {record.last_step}' if chosen else record.last_step} |"
    versions = record.machine.get("versions")
    if isinstance(versions, dict):
        told = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
        yield f"| versions | {code(told, 400)} |"
    yield f"| device | {code(record.machine.get('gpu') or record.machine.get('device') or 'unknown')} |"
    yield from ("", "The same run again:", "", "```", one_line(command_of(record).replace("`", "'"), 4000), "```", "")


def code(value: object, longest: int = 200) -> str:
    """Returns a value as a span of code, in which Markdown and HTML mean nothing, also in a table."""
    text = one_line(value, longest).replace("`", "'").replace("|", "¦")
    return f"`{text or ' '}`"
