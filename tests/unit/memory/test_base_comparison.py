"""What an evaluation's KL from the base model takes, in the estimate of a run."""

from dataclasses import replace

import pytest

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.memory.base_comparison import comparison_moments
from lowmem_rl.memory.estimate import estimate
from lowmem_rl.memory.workload import Workload, workload_of
from lowmem_rl.models.hardware import CARDS
from lowmem_rl.models.lookup import load_shape

SHAPE = load_shape("Qwen/Qwen2.5-1.5B-Instruct")
LOGITS = "logits of both models"


def workload(eval_rows: int = 8) -> Workload:
    memory = {"micro_batch": 2, "rollout_rows": 8, "checkpointing": "none"}
    sections = {
        "memory": memory,
        "rollout": {"weights": "quantized"},
        "model": {"bits": 4},
        "eval": {"batch": eval_rows},
    }
    return workload_of(RunConfig.model_validate(sections), SHAPE)


def sizes(work: Workload, name: str) -> list[int]:
    """The bytes of a term, moment by moment."""
    return [one.expected_bytes for moment in comparison_moments(work, SHAPE) for one in moment if one.name == name]


def test_a_forward_reads_a_micro_batch_and_no_more_rows_than_are_compared() -> None:
    (one,), *more = [sizes(replace(workload(), micro_batch=rows), "one layer's forward") for rows in (1, 2, 8, 16)]
    assert more == [[2 * one], [8 * one], [8 * one]]


@pytest.mark.parametrize("tokens", [128, 512])
def test_states_of_both_models_are_kept_of_eight_completions(tokens: int) -> None:
    work = replace(workload(), completion_tokens=tokens)
    assert sizes(work, "last states of both models") == 2 * [2 * 8 * tokens * SHAPE.hidden_size * 2]


def test_it_is_the_peak_of_an_evaluation_that_samples_one_row() -> None:
    few, many = (estimate(workload(rows), SHAPE, CARDS["t4"]).to_json_phases()["evaluation"] for rows in (1, 256))
    assert few[LOGITS] == 128 * SHAPE.vocab_size * 20
    assert LOGITS not in many
