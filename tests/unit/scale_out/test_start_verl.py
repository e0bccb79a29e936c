from pathlib import Path

import pytest

from lowmem_rl.errors import RunDirError
from lowmem_rl.scale_out import start_verl


def test_files_are_named_where_the_folder_is_now_and_further_overrides_come_last(tmp_path: Path):
    folder = tmp_path / "it's moved"
    (folder / "adapter").mkdir(parents=True)
    (folder / "overrides.yaml").write_text("- a.b=1\n- c='x'\n")
    found = start_verl.arguments_of(folder, ["a.b=2"])
    assert found[:2] == ["a.b=1", "c='x'"]
    assert found[-1] == "a.b=2"
    quoted = str(folder).replace("'", "\\'")
    assert f"data.train_files='{quoted}/data/train.parquet'" in found
    assert f"actor_rollout_ref.model.lora_adapter_path='{quoted}/adapter'" in found


@pytest.mark.parametrize("text", [None, "a: 1", "- [", "\x00"])
def test_a_folder_without_overrides_is_refused(tmp_path: Path, text: str | None):
    if text is not None:
        (tmp_path / "overrides.yaml").write_text(text)
    with pytest.raises(RunDirError, match="overrides.yaml") as refused:
        start_verl.arguments_of(tmp_path)
    assert refused.value.hint


def test_without_verl_it_ends_with_two_lines(tmp_path: Path, capsys):
    (tmp_path / "overrides.yaml").write_text("- a.b=1\n")
    assert start_verl.main([str(tmp_path)]) == 3
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: verl is not installed here."
    assert "verl[vllm]>=0.9,<0.10" in hint
