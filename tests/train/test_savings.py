"""The opt-in savings that change learning: each does what its setting says."""

import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from statistics import pvariance

import pytest
import torch

from lowmem_rl.engine.repetition_stop import WINDOW, is_looping
from lowmem_rl.grpo.dynamic_sampling import dead_groups, replaced
from lowmem_rl.grpo.rollout_downsampling import down_sampled, most_spread
from lowmem_rl.storage.run_dir import RunDir, read_rows

pytestmark = pytest.mark.usefixtures("preloaded")


@pytest.mark.parametrize("values", [[0.0, 1.0, 0.2, 0.9, 0.5], [1.0, 1.0, 0.0, 1.0], [3.0, 1.0, 1.0, 1.1, 0.9, 2.0]])
@pytest.mark.parametrize("count", [2, 3])
def test_the_rows_kept_have_the_most_variance_of_all_subsets(values: list[float], count: int) -> None:
    best = max(pvariance(subset) for subset in combinations(values, count))
    assert pvariance([values[place] for place in most_spread(values, count)]) == pytest.approx(best)


def batch_of(advantages: list[list[float]], completion: int = 4) -> dict:
    groups = torch.tensor(advantages)
    rows = groups.numel()
    lengths = torch.arange(rows) % completion + 1
    return {
        "prompt_ids": torch.arange(rows)[:, None].expand(-1, 3),
        "prompt_mask": torch.ones(rows, 3, dtype=torch.long),
        "completion_ids": torch.arange(rows)[:, None].expand(-1, completion),
        "completion_mask": (torch.arange(completion) < lengths[:, None]).long(),
        "advantages": groups.flatten(),
        "num_items_in_batch": lengths.sum(),
    }


def test_a_down_sampled_group_is_normalised_again_and_the_loss_divides_by_what_is_kept() -> None:
    kept = down_sampled(batch_of([[-1.0, 0.0, 0.1, 1.0]]), 4, 2, scaled=True, counts_rows=False)
    assert kept["advantages"].tolist() == pytest.approx([-0.7071, 0.0, 0.0, 0.7071], abs=1e-3)
    assert int(kept["num_items_in_batch"]) == 1 + 4
    by_rows = down_sampled(batch_of([[-1.0, 0.0, 0.1, 1.0]]), 4, 2, scaled=True, counts_rows=True)
    assert by_rows["advantages"].tolist() == pytest.approx([-1.4142, 0.0, 0.0, 1.4142], abs=1e-3)


def test_a_dead_group_stays_dead_when_down_sampled() -> None:
    kept = down_sampled(batch_of([[0.0, 0.0, 0.0, 0.0]]), 4, 2, scaled=True, counts_rows=False)
    assert kept["advantages"].tolist() == [0.0] * 4


def test_informative_groups_take_the_place_of_dead_ones() -> None:
    old = batch_of([[0.0, 0.0], [1.0, -1.0], [0.0, 0.0]])
    new = batch_of([[0.0, 0.0], [0.5, -0.5]], completion=6)
    merged = replaced(old, dead_groups(old, 2), new, 2, pad_id=9)
    assert merged["advantages"].tolist() == [0.5, -0.5, 1.0, -1.0, 0.0, 0.0]
    assert merged["completion_ids"].shape == (6, 6)
    assert merged["completion_ids"][0].tolist() == [2] * 6
    assert int(merged["num_items_in_batch"]) == int(merged["completion_mask"].sum())
    assert int(merged["completion_mask"][2].sum()) == int(old["completion_mask"][2].sum())


def test_rollouts_of_other_widths_are_padded_with_the_pad_id() -> None:
    old, new = batch_of([[0.0, 0.0], [1.0, -1.0]]), batch_of([[0.5, -0.5]], completion=6)
    new |= {key: new[key].repeat(1, 2) for key in ("prompt_ids", "prompt_mask")}
    merged = replaced(old, [0], new, 2, pad_id=9)
    assert merged["prompt_ids"][2].tolist() == [9, 9, 9, 2, 2, 2]
    assert merged["prompt_mask"][2].tolist() == [0, 0, 0, 1, 1, 1]
    assert merged["completion_ids"][2].tolist() == [2, 2, 2, 2, 9, 9]


def with_unsloths_log_probs(batch: dict, padding: list[int]) -> dict:
    """As Unsloth aligns them: what follows a prompt begins earlier by as much as the prompt is padded."""
    width, reach = batch["completion_ids"].shape[1], max(padding)
    log_probs = torch.zeros(len(padding), width + reach)
    for row, missing in enumerate(padding):
        batch["prompt_mask"][row, :missing] = 0
        log_probs[row, reach - missing :][:width] = batch["completion_mask"][row] * (row + 1)
    return batch | {"old_per_token_logps": log_probs, "max_left_pad": torch.full((len(padding), 1), reach)}


def test_unsloths_log_probs_still_begin_where_their_completions_do() -> None:
    old = with_unsloths_log_probs(batch_of([[0.0, 0.0], [1.0, -1.0]]), [0, 0, 1, 1])
    new = batch_of([[0.5, -0.5]], completion=6)
    new |= {key: new[key].repeat(1, 2) for key in ("prompt_ids", "prompt_mask")}
    merged = replaced(old, [0], with_unsloths_log_probs(new, [0, 2]), 2, pad_id=9)
    expected = with_unsloths_log_probs(merged, (merged["prompt_mask"] == 0).sum(1).tolist())
    assert merged["max_left_pad"].tolist() == expected["max_left_pad"].tolist()
    numbers = torch.tensor([1, 2, 3, 4])[:, None]  # of the row in its own rollout
    assert torch.equal((merged["old_per_token_logps"] > 0) * numbers, (expected["old_per_token_logps"] > 0) * numbers)


def test_equal_advantages_stay_dead_when_down_sampled() -> None:
    kept = down_sampled(batch_of([[1e-4] * 8]), 8, 5, scaled=True, counts_rows=False)
    assert kept["advantages"].tolist() == [0.0] * 8


def test_a_loop_is_a_period_that_fills_the_window() -> None:
    generator = torch.Generator().manual_seed(0)
    free = torch.randint(0, 50, (WINDOW,), generator=generator)
    period = torch.randint(0, 50, (7,), generator=generator).repeat(WINDOW)[:WINDOW]
    broken = period.clone()
    broken[40] += 1
    assert is_looping(torch.stack((free, period, broken, torch.zeros(WINDOW, dtype=torch.long)))).tolist() == [
        False,
        True,
        False,
        True,
    ]


def trained(out: Path, *settings: str) -> RunDir:
    sets = (f"--set={setting}" for setting in ("eval.examples=8", "eval.every=0", "memory.micro_batch=8", *settings))
    program = Path(sys.executable).with_name("lowmem-rl")
    command = [program, "train", "--preset=tiny-cpu", "--steps=2", "--force", f"--out={out}"]
    done = subprocess.run([*command, *sets], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return RunDir(out)


def test_resampling_leaves_fewer_dead_rows(tmp_path: Path) -> None:
    plain = list(read_rows(trained(tmp_path / "plain", "grpo.group_size=3").metrics))
    full = list(read_rows(trained(tmp_path / "full", "grpo.group_size=3", "grpo.resample_rounds=4").metrics))
    assert sum(row["dead_rows"] for row in full) < sum(row["dead_rows"] for row in plain)
    assert json.loads((tmp_path / "full" / "config.json").read_text())["config"]["grpo"]["resample_rounds"] == 4


def test_down_sampling_leaves_all_but_the_kept_rows_out_of_the_update(tmp_path: Path) -> None:
    rows = list(read_rows(trained(tmp_path / "run", "grpo.update_rows=2").metrics))
    assert all(row["dead_rows"] >= 8 * 6 for row in rows)
