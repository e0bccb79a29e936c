"""`lowmem-rl eval`: accuracy of a run, an adapter or a model on held-out problems."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from lowmem_rl.evaluation.eval_result import EvalResult
from lowmem_rl.storage.run_dir import RunDir
from lowmem_rl_cli import console
from lowmem_rl_cli.metric_text import share_text
from lowmem_rl_cli.text_page import BOLD, TextPage, stdout_page

_GREEDY_HEAD = ("task", "domain", "items", "any format", "requested format", "tokens", "cut off")
_SAMPLED_HEAD = ("k", "pass@k", "maj@k", "pass@k, requested format", "maj@k, requested format")
_DOMAINS = {True: "trained on", False: "another", None: "-"}


def eval_command(
    name: str,
    *,
    tasks: Sequence[str],
    preset: str | None,
    settings: Sequence[str],
    out: Path | None,
    allow_code: bool,
    as_json: bool,
) -> None:
    """Evaluates and prints; after an interruption the same command continues."""
    from lowmem_rl.config.presets import default_preset
    from lowmem_rl.evaluation.eval_target import find_target
    from lowmem_rl.models.hardware import this_machine

    card = this_machine().card
    target = find_target(name, preset or default_preset(card.key if card else None), settings, tasks)
    # After `find_target`, whose errors need no torch.
    from lowmem_rl.entrypoints.run_eval import run_eval
    from lowmem_rl_cli.live_view import watched

    with watched(f"evaluating {name}") as show:
        done = run_eval(target, tasks, out, show, allow_code=allow_code)
    if as_json:
        results = [{"name": key, **result.to_json()} for key, result in done.results.items()]
        console.show_json({"path": str(done.path), "target": name, "results": results})
    else:
        console.show("\n".join(_lines(name, done.path, list(done.results.values()), stdout_page())))


def _lines(name: str, path: Path, results: Sequence[EvalResult], page: TextPage) -> Iterator[str]:
    yield from page.fold(f"{name}: held-out problems, with 95 % intervals", "", "", BOLD)
    yield from page.heading("Greedy")
    yield from page.table([_greedy_row(result) for result in results], "llrllrr", _GREEDY_HEAD)
    for result in results:
        if result.samples > 1:
            yield from page.heading(f"{result.task}: {result.samples} samples", "the item is the unit")
            yield from page.table(list(_sampled_rows(result)), "rllll", _SAMPLED_HEAD)
        if len(result.by_level) > 1:
            yield from page.heading(f"{result.task} by level", "greedy")
            head = ("level", "items", "any format", "requested format")
            yield from page.table(list(_level_rows(result)), "rrll", head)
    yield ""
    if late := sum(result.late_verdicts for result in results):
        yield from page.fold(f"{late} comparisons with a gold answer took too long and counted as unequal.", "")
    if (kl_nats := next((r.kl_nats for r in results if r.kl_nats is not None), None)) is not None:
        yield from page.fold(f"The policy is {kl_nats:.3f} nats per token from its base model.", "")
    yield from page.fold(f"Each answer is in {path / 'eval'}, the figures are in {RunDir(path).evaluations}", "")


def _greedy_row(result: EvalResult) -> tuple[str, ...]:
    return (
        result.task,
        _DOMAINS[result.in_domain],
        str(result.num_examples),
        share_text(result.pass_at_1, result.pass_at_1_interval),
        share_text(result.strict_pass_at_1, result.strict_pass_at_1_interval),
        f"{result.completion_tokens:.1f}",
        f"{100 * result.truncated_share:.1f} %",
    )


def _sampled_rows(result: EvalResult) -> Iterator[tuple[str, ...]]:
    for k in result.pass_at_k:
        columns = (
            (result.pass_at_k, result.pass_at_k_intervals),
            (result.maj_at_k, result.maj_at_k_intervals),
            (result.strict_pass_at_k, result.strict_pass_at_k_intervals),
            (result.strict_maj_at_k, result.strict_maj_at_k_intervals),
        )
        yield (k, *(share_text(shares[k], intervals[k]) for shares, intervals in columns))


def _level_rows(result: EvalResult) -> Iterator[tuple[str, ...]]:
    for level, found in result.by_level.items():
        lenient = share_text(found.pass_at_1, found.pass_at_1_interval)
        strict = share_text(found.strict_pass_at_1, found.strict_pass_at_1_interval)
        yield level, str(found.num_examples), lenient, strict
