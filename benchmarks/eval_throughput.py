"""How fast are greedy answers to held-out problems, from our sampler and from `generate` at the same batch size?

    .venv/bin/lowmem-rl train --preset tiny-cpu --out runs/demo
    .venv/bin/python benchmarks/eval_throughput.py --adapter runs/demo/adapter --out benchmarks/records/eval.json
    .venv/bin/python benchmarks/eval_throughput.py --model FOLDER --batches 8 32 --examples 32 --max-tokens 96

All run through `Sampler.answers`, as an evaluation does, with the same policy in one process, in turns: one round of
warm-up, then `--rounds` that count. `merged` is the default of an evaluation on a CPU. `quantized` computes with the
same weights as `generate` and must give the same tokens; if it does not, the record has the gap between the two
highest logits, because rounding decides a tie. Target: `merged` is at least three times as fast.

`ratio_of_products_alone` is an upper bound of the ratio for many rows: the time of `generate` over the time of those
products that `merged` cannot avoid (matrices and attention, from PyTorch's profiler, the shortest of the rounds).
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from lowmem_rl.config.compose import resolve
from lowmem_rl.engine.adapter import load_adapter
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.hf_generate import Completion
from lowmem_rl.engine.policy import Policy, load_policy, prepare_process
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.engine.sampling import GREEDY
from lowmem_rl.evaluation.eval_set import EvalSet, held_out
from lowmem_rl.models.hardware import this_machine
from lowmem_rl.telemetry.environment import environment_record

ARMS = {
    "generate": ("rollout.engine=generate",),
    "quantized": ("rollout.engine=lowmem", "rollout.weights=quantized"),
    "merged": ("rollout.engine=lowmem", "rollout.weights=merged"),
}
SMALL_PRETRAINED = ("task.levels=[0]",)
"""Problems that a small pretrained model can begin with."""
Answers = list[Completion]
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::_scaled_dot_product_flash_attention_for_cpu")
PROFILED_BATCHES = 4


def main() -> None:
    """Measures every batch size and writes the record."""
    options = _options()
    device = Device("cpu", "float32")
    fixed = ["memory.checkpointing=none", f"eval.examples={options.examples}", *options.settings]
    if options.model:
        fixed += [f"model.name={options.model}", *SMALL_PRETRAINED]
    if options.max_tokens:
        fixed.append(f"grpo.max_completion_tokens={options.max_tokens}")
    configs = {arm: resolve(preset="tiny-cpu", settings=[*fixed, *own]).config for arm, own in ARMS.items()}
    prepare_process(configs["merged"], device)
    policy = load_policy(configs["merged"], device)
    if options.adapter:
        load_adapter(policy.model, options.adapter)
    samplers = {arm: Sampler(policy, config) for arm, config in configs.items()}
    eval_set = held_out(configs["merged"], configs["merged"].task)
    rows = [measure(samplers, eval_set, batch, options.rounds, policy) for batch in options.batches]
    record = {"date": date.today().isoformat(), "command": " ".join(["benchmarks/eval_throughput.py", *sys.argv[1:]])}
    record |= {"machine": environment_record(this_machine(), device), "examples": options.examples}
    record |= {"threads": policy.threads and policy.threads.to_json(), "rows": rows}
    options.out.write_text(json.dumps(record, indent=2) + "\n")


def measure(samplers: dict[str, Sampler], eval_set: EvalSet, batch: int, rounds: int, policy: Policy) -> dict[str, Any]:
    """Returns each arm's tokens a second, the ratios to `generate` within a round, and the texts that differ."""
    speeds: dict[str, list[float]] = {arm: [] for arm in samplers}
    work: dict[str, list[float]] = {arm: [] for arm in samplers}
    answers: dict[str, Answers] = {}
    for number in range(rounds + 1):
        for arm, sampler in samplers.items():
            began, began_work = time.monotonic(), time.process_time()
            answers[arm] = answered(sampler, eval_set, batch)
            seconds, work_s = time.monotonic() - began, time.process_time() - began_work
            if number:
                count = sum(completion.tokens for completion in answers[arm])
                speeds[arm].append(count / seconds)
                work[arm].append(count / work_s)
    tokens = {arm: sum(completion.tokens for completion in found) for arm, found in answers.items()}
    generate_s = tokens["generate"] / median(speeds["generate"])
    products_s = tokens["merged"] * min(
        products_s_per_token(samplers["merged"], eval_set, batch) for _ in range(rounds)
    )
    row = {
        "batch": batch,
        "tokens": tokens,
        "tokens_per_s": {arm: spread(values) for arm, values in speeds.items()},
        "ratio": {arm: spread(ratios(speeds, arm)) for arm in ("quantized", "merged")},
        "ratio_of_process_time": {arm: spread(ratios(work, arm)) for arm in ("quantized", "merged")},
        "products_s": round(products_s, 3),
        "ratio_of_products_alone": round(generate_s / products_s, 3),
        "texts_that_differ": {
            arm: differences(policy, eval_set, answers["generate"], answers[arm]) for arm in ("quantized", "merged")
        },
    }
    print(json.dumps({key: value for key, value in row.items() if key != "texts_that_differ"}), file=sys.stderr)
    print({arm: len(found) for arm, found in row["texts_that_differ"].items()}, file=sys.stderr)
    return row


def answered(sampler: Sampler, eval_set: EvalSet, batch: int) -> Answers:
    """Returns the greedy completions in the order of the examples."""
    prompts = [example.prompt for example in eval_set.examples]
    found = sampler.answers(prompts, GREEDY, max_tokens=eval_set.max_tokens, batch=batch)
    return [completion for _, completion in sorted(found, key=lambda pair: pair[0])]


def products_s_per_token(sampler: Sampler, eval_set: EvalSet, batch: int) -> float:
    """Returns the seconds of matrix products and attention, over a few batches."""
    from torch.profiler import ProfilerActivity, profile

    few = replace(eval_set, examples=eval_set.examples[: PROFILED_BATCHES * batch])  # for all, it takes gigabytes
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        answers = answered(sampler, few, batch)
    seconds = sum(one.self_cpu_time_total for one in profiled.key_averages() if one.key in PRODUCTS) / 1e6
    return seconds / sum(completion.tokens for completion in answers)


def ratios(speeds: dict[str, list[float]], arm: str) -> list[float]:
    """Returns how many times as fast an arm was in each round."""
    return [ours / theirs for ours, theirs in zip(speeds[arm], speeds["generate"], strict=True)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns median, minimum and maximum."""
    return {name: round(of(values), 3) for name, of in (("median", median), ("min", min), ("max", max))}


def differences(policy: Policy, eval_set: EvalSet, first: Answers, second: Answers) -> list[dict[str, Any]]:
    """Returns the items with different text, and the gap of the two highest logits at the first different token."""
    pairs = zip(eval_set.examples, first, second, strict=True)
    return [
        {
            "example_id": example.id,
            "logit_gap": gap_at_difference(policy, policy.tokenize(example.prompt), one, other),
        }
        for example, one, other in pairs
        if one != other
    ]


def gap_at_difference(policy: Policy, prompt: list[int], one: Completion, other: Completion) -> float:
    """Returns the gap of the two highest logits, by the model's own forward, after the tokens that both have."""
    import torch

    ids = [policy.tokenizer(text.text, add_special_tokens=False)["input_ids"] for text in (one, other)]
    shared = next((i for i, pair in enumerate(zip(*ids, strict=False)) if pair[0] != pair[1]), min(map(len, ids)))
    with torch.inference_mode():
        logits = policy.model(input_ids=torch.tensor([[*prompt, *ids[0][:shared]]])).logits[0, -1]
    best, next_best = logits.topk(2).values.tolist()
    return float(best - next_best)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, help="a trained adapter; the base model's answers are short")
    parser.add_argument("--model", type=Path, help="a folder of model and tokenizer, instead of the embedded model")
    parser.add_argument("--max-tokens", type=int, help="of an answer; default: the preset's")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/records/eval.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
