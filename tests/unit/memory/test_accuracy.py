"""The estimate against measured rows, and invalid rows."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from lowmem_rl_cli.score_view import render
from lowmem_rl_cli.text_page import TextPage

from lowmem_rl.errors import ConfigError
from lowmem_rl.memory.accuracy import score
from lowmem_rl.memory.estimate import UNVALIDATED
from lowmem_rl.memory.measured_rows import LARGEST_FILE_BYTES, MeasuredRow, card_of, read_rows, workload_of_row
from lowmem_rl.units import GIB

ROW: dict[str, Any] = {
    "id": "one",
    "source": "here",
    "gpu": "Tesla T4",
    "stack": "trl",
    "loss": "sft",
    "method": "qlora",
    "model": "Qwen/Qwen2.5-1.5B",
    "lora_rank": 16,
    "lora_targets": ["q_proj", "v_proj"],
    "micro_batch": 2,
    "prompt_tokens": 512,
    "completion_tokens": 0,
    "group_size": None,
    "rollout_rows": None,
    "checkpointing": "plain",
    "optimizer": "adamw_torch",
    "rollout_engine": None,
}


def write(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "rows.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def scored(**changes: Any) -> Any:
    (one,) = score([MeasuredRow.model_validate(ROW | changes)]).rows
    return one


def test_a_row_is_scored_and_comes_back_as_it_was() -> None:
    one = scored(process_bytes=4 * GIB, colour="blue")
    content = one.to_json()
    assert content["predicted"]["process"] > 0
    assert {key: content[key] for key in (*ROW, "colour") if key != "lora_targets"} == {
        **{key: value for key, value in ROW.items() if key != "lora_targets"},
        "colour": "blue",
    }
    assert one.error("process") == pytest.approx(one.predicted["process"] / (4 * GIB) - 1)
    assert one.error("allocated") is None


def test_a_row_that_our_engine_sampled_counts_its_copy_of_the_weights() -> None:
    grpo = {"loss": "grpo", "stack": "unsloth", "gpu": "RTX A6000", "group_size": 8, "rollout_rows": 8, "eval_rows": 8}
    lengths = {"prompt_tokens": 16, "completion_tokens": 16, "micro_batch": 1, "process_bytes": GIB}
    ours = grpo | lengths | {"rollout_engine": "lowmem"}
    quantized, merged = (scored(**ours, rollout_weights=weights).predicted for weights in ("quantized", "merged"))
    assert merged["allocated"] - quantized["allocated"] > 2 * GIB  # 1.3 billion weights in 16 bit


def test_a_row_whose_lengths_are_not_split_is_scored() -> None:
    grpo = {"loss": "grpo", "group_size": 8, "rollout_rows": 8, "rollout_engine": "lowmem", "process_bytes": GIB}
    assert scored(**grpo, prompt_tokens=0, completion_tokens=1024).predicted


def test_an_error_within_the_sources_rounding_is_none() -> None:
    exact = scored(process_bytes=4 * GIB).predicted["process"]
    assert scored(process_bytes=exact + GIB // 4, rounded_to_bytes=GIB).error("process") == 0
    assert scored(process_bytes=exact + GIB, rounded_to_bytes=GIB).error("process") < 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "nothing was measured"),
        ({"process_bytes": 1, "left_out": "a mixture of experts"}, "a mixture of experts"),
        ({"process_bytes": 1, "model": "someone/unheard-of"}, "the shape of someone/unheard-of is not known"),
        ({"process_bytes": 1, "lora_targets": ("q", "x")}, "adapter.targets: no formula for 'x'"),
    ],
)
def test_a_row_that_cannot_be_scored_says_why(changes: dict[str, Any], reason: str) -> None:
    assert scored(**changes).to_json()["left_out"] == reason


def test_the_summary_groups_errors_and_names_failed_runs_called_fitting() -> None:
    truth = scored(process_bytes=1).predicted["process"]
    rows = [
        ROW | {"process_bytes": truth},
        ROW | {"id": "two", "process_bytes": 2 * truth, "stack": "trl"},
        ROW | {"id": "failed", "oom": True, "micro_batch": 512},
        ROW | {"id": "odd", "oom": True},
    ]
    summary = score(map(MeasuredRow.model_validate, rows)).summary
    assert summary["errors"]["process"]["rows"] == 2
    assert summary["errors"]["process"]["worst_row"] == "two"
    assert summary["errors"]["process"]["under_predicted"] == ["two"]
    assert summary["by_card"]["t4"]["process"]["mean_error"] == 0.25
    assert summary["out_of_memory"] == {"rows": 2, "called_fits": ["odd"]}
    assert summary["unvalidated"] == [UNVALIDATED]


def test_every_wrong_verdict_and_every_row_beyond_its_bound_is_named() -> None:
    rows = [
        ROW | {"id": "done", "process_bytes": 4 * GIB},
        ROW | {"id": "called-too-large", "process_bytes": 4 * GIB, "micro_batch": 512},
        ROW | {"id": "above", "process_bytes": 14 * GIB},
        ROW | {"id": "failed", "oom": True, "micro_batch": 512},
        ROW | {"id": "load", "load_reserved_bytes": GIB, "rounded_to_bytes": GIB},
    ]
    result = score(map(MeasuredRow.model_validate, rows))
    summary = result.summary
    assert summary["verdicts"]["completed"]["does-not-fit"] == ["called-too-large"]
    assert summary["verdicts"]["out of memory"]["does-not-fit"] == ["failed"]
    assert summary["above_upper"] == ["above"]
    assert (summary["load_alone"], summary["rounded"]) == (["load"], ["load"])
    page = render(result, TextPage(columns=100))
    for said in ("completed, called not fitting (1): called-too-large", "1 of them by their load alone", "(1): above"):
        assert said in page


def test_a_row_of_the_default_stack_ends_unvalidated() -> None:
    row = {"stack": "unsloth", "loss": "grpo", "process_bytes": GIB, "completion_tokens": 256}
    assert score([MeasuredRow.model_validate(ROW | row)]).summary["unvalidated"] == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stack": "megatron"}, "row 2: stack is 'megatron'"),
        ({"micro_batch": 0}, "row 2: micro_batch is 0"),
        ({"lora_rank": "sixteen"}, "row 2: lora_rank is 'sixteen'"),
        ({"process_bytes": -1}, "row 2: process_bytes is -1"),
        ({"optimizer": ""}, "row 2: optimizer is ''"),
        ({"optimizer": "sophia"}, "row 2: optimizer is 'sophia'"),
        ({"micro_batch": 1e30}, "row 2: micro_batch is 1e"),
        ({"micro_batch": 10**30}, "row 2: micro_batch is 1000"),
        ({"prompt_tokens": 0}, "row 2: prompt_tokens and completion_tokens are both 0"),
        ({"process_bytes": True}, "row 2: process_bytes is True"),
        ({"process_bytes": 2**60}, "row 2: process_bytes is"),
        ({"vllm_utilisation": 99}, "row 2: vllm_utilisation is 99"),
        ({"lora_dropout": 1.0}, "row 2: lora_dropout is 1.0"),
        ({"oom": 1}, "row 2: oom is 1"),
        ({"id": "one"}, "row 2: id is 'one', as in row 1"),
    ],
)
def test_a_wrong_row_is_named_by_number_and_field(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        read_rows(write(tmp_path, [ROW, ROW | {"id": "two"} | changes]))
    assert caught.value.hint


def test_a_missing_field_a_wrong_shape_and_no_json_have_different_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="row 1: model is missing"):
        read_rows(write(tmp_path, [{key: value for key, value in ROW.items() if key != "model"}]))
    with pytest.raises(ConfigError, match="not a list of rows"):
        read_rows(write(tmp_path, {"rows": []}))
    with pytest.raises(ConfigError, match="row 1: the row is 7"):
        read_rows(write(tmp_path, [7]))
    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        read_rows(write(tmp_path, "{"))
    with pytest.raises(ConfigError, match="NaN"):
        read_rows(write(tmp_path, [ROW | {"vllm_utilisation": float("nan")}]))


def test_what_is_no_file_or_no_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(ConfigError, match="not a regular file"):
            read_rows(path)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(LARGEST_FILE_BYTES + 1)
    with pytest.raises(ConfigError, match="larger than 64 MB"):
        read_rows(tmp_path / "large")


@pytest.mark.parametrize(
    ("gpu", "key"),
    [
        ("Tesla T4", "t4"),
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
        ("A100-80GB", "a100-80"),
        ("H100-80GB PCIe", "h100"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", None),
        ("NVIDIA GeForce RTX 4090", "4090"),
        (None, None),
    ],
)
def test_a_card_is_known_by_the_names_reports_use(gpu: str | None, key: str | None) -> None:
    card = card_of(gpu)
    assert (card and card.key) == key


def test_what_a_row_does_not_say_is_what_its_stack_does() -> None:
    plain = workload_of_row(MeasuredRow.model_validate(ROW | {"lora_targets": ["q", "v"]}))
    assert (plain.layer, plain.logits, plain.double_quantisation, plain.upcast_remainder) == (
        "plain",
        "full",
        False,
        True,
    )
    assert plain.lora_targets == ("q_proj", "v_proj")
    said = workload_of_row(MeasuredRow.model_validate(ROW | {"double_quantisation": True, "upcast_remainder": False}))
    assert (said.double_quantisation, said.upcast_remainder) == (True, False)
    own = workload_of_row(MeasuredRow.model_validate(ROW | {"stack": "unsloth", "loss": "grpo"}))
    assert (own.layer, own.logits, own.double_quantisation) == ("unsloth", "chunked", True)


VARYING = {"model": "Qwen/Qwen2.5-7B", "gpu": "A100-80GB", "peak_reserved_bytes": 30 * GIB, "completion_tokens": 0}


@pytest.mark.parametrize("says_so", [{"lengths_vary": True}, {"note": "rows of 91 to max_length tokens, at random"}])
def test_rows_of_varying_lengths_are_scored_separately(says_so: dict[str, Any]) -> None:
    one = MeasuredRow.model_validate(ROW | VARYING | {"id": "fixed"})
    result = score([one, MeasuredRow.model_validate(ROW | VARYING | says_so)])
    summary = result.summary
    assert summary["errors"]["reserved"]["rows"] == summary["varying"]["reserved"]["rows"] == 1
    fixed, varying = (row.predicted["reserved"] for row in result.rows if row.predicted)
    assert varying > fixed
    assert "Varying lengths" in render(result, TextPage(columns=100))


def test_a_stack_is_validated_by_a_measured_peak_alone() -> None:
    ours = {"stack": "unsloth", "loss": "grpo", "gpu": "RTX A6000", "group_size": 2, "rollout_rows": 2}
    ours |= {"rollout_engine": "lowmem"}
    unmeasured = [{"oom": True}, {"load_reserved_bytes": GIB}, {"process_bytes": GIB, "lengths_at_most": True}]
    for more in unmeasured:
        assert score([MeasuredRow.model_validate(ROW | ours | more)]).summary["unvalidated"] == [UNVALIDATED]
    assert score([MeasuredRow.model_validate(ROW | ours | {"process_bytes": GIB})]).summary["unvalidated"] == []


def test_a_bound_respects_the_sources_rounding() -> None:
    limits = {"gpu": "RTX A6000", "lengths_at_most": True}
    upper = scored(process_bytes=GIB, **limits).predicted["upper"]
    beyond = {"process_bytes": upper + GIB // 4, **limits}
    assert not scored(**beyond).inside_bounds
    assert scored(**beyond, rounded_to_bytes=GIB).inside_bounds
