"""Waiting for the card: how often a step does, by the line of ours that asks for it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.rehearsal.bytes import agree
from tests.rehearsal.card.waits import TO_HOST
from tests.rehearsal.real_shape import trained
from tests.rehearsal.stage import Stage

STEPS, TOKENS, LOOK_EVERY = 2, 32, 8
SHORT = {
    "rollout.engine": "lowmem",
    "grpo.prompts_per_step": 2,
    "memory.micro_batch": 8,
    "grpo.max_completion_tokens": TOKENS,
    "eval.examples": 8,
    "eval.quick_examples": 8,
}
OF_THE_ENGINE = {
    "engine/continuous_batching.py": 2 * TOKENS // LOOK_EVERY,  # a look at who has stopped, and the tokens of those
    "engine/logprobs.py": 1,  # a comparison of the sampler with the training weights
}
"""Most waits in a step, by file; no other file of the engine waits in one."""
OF_ALL = 110
"""Most waits in a step, those inside of TRL and Unsloth included: 100 were counted, 11 of them ours."""
TENSORS = 42
"""Weights that learn. A step that brought them to the host would copy as often."""
CHECKPOINT = "engine/policy.py"
"""It saves the adapter after the last step, which is not part of a step."""


def counts_steps_alone() -> None:
    """Ends the count with the last step: evaluating and saving are not part of a step."""
    from transformers import Trainer
    from transformers.trainer_callback import CallbackHandler

    from tests.rehearsal.card.state import STATE
    from tests.rehearsal.card.waits import uncounted

    Trainer._save_optimizer_and_scheduler = uncounted()(Trainer._save_optimizer_and_scheduler)
    plain = CallbackHandler.on_train_end

    def on_train_end(*args: Any, **kwargs: Any) -> Any:
        STATE.counts_waits = False
        return plain(*args, **kwargs)

    CallbackHandler.on_train_end = on_train_end


def test_a_step_waits_for_few_things_of_ours(a6000: Stage, tmp_path: Path) -> None:
    settings = [f"--set={key}={value}" for key, value in SHORT.items()]
    run = ("train", "--preset=tiny-cpu", f"--steps={STEPS}", *settings, "--out", str(tmp_path / "run"))
    ended = a6000.lowmem(*run, counts_waits=True, before=counts_steps_alone)
    assert ended.code == 0, ended.output
    waits = [wait for wait in ended.report.waits if not wait[1].startswith(CHECKPOINT)]
    by_file: Counter[str] = Counter()
    for _, ours, _, count in waits:
        by_file[ours.partition(":")[0]] += count
    engine = {file: count for file, count in by_file.items() if file.startswith("engine/")}
    engine.pop("engine/oom.py", None)  # it calls the optimizer's step, whose waits are transformers'
    assert set(engine) == set(OF_THE_ENGINE)
    assert all(engine[file] <= STEPS * most for file, most in OF_THE_ENGINE.items()), engine
    assert sum(by_file.values()) <= STEPS * OF_ALL, by_file
    to_host = [wait for wait in waits if wait[0] == TO_HOST]
    assert sum(count for *_, count in to_host) < STEPS * TENSORS / 2, to_host


def agrees_and_counts_steps_alone() -> None:
    """For tensors without data."""
    agree()
    counts_steps_alone()


@pytest.mark.long
def test_a_step_of_a_7b_model_brings_the_host_no_weights(a6000: Stage, tmp_path: Path) -> None:
    before = agrees_and_counts_steps_alone
    ended = trained(a6000, "qwen7b-a6000", tmp_path, layers=2, counts_waits=True, before=before)
    assert ended.code == 0, ended.output
    adapter = max(path.stat().st_size for path in (tmp_path / "run").rglob("adapter_model.safetensors"))
    assert adapter > 10**7
    copied = {line: nbytes for line, nbytes in ended.report.bytes_to_host.items() if not line.startswith(CHECKPOINT)}
    assert 0 < sum(copied.values()) < adapter / 10, copied
