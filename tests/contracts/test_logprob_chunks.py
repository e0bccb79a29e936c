"""Unsloth's chunks of logits, in the estimate, against the installed unsloth_zoo."""

import json
import subprocess
import sys

import pytest

from lowmem_rl.memory.activations import chunk_rows
from lowmem_rl.models.lookup import load_shape

pytestmark = pytest.mark.slow  # half a minute, mostly to load the stack

MODELS = ("Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-7B", "meta-llama/Llama-2-7b-hf", "meta-llama/Llama-3.1-8B", "tiny")
ROWS = (1, 100, 600, 4095)

ASK = """
import json, os, sys
os.environ["UNSLOTH_ALLOW_CPU"] = "1"
import unsloth, torch
from unsloth_zoo.fused_losses import fused_linear
from unsloth_zoo.rl_replacements import chunked_hidden_states_selective_log_softmax
fused_linear._budget_bytes = lambda device: 2 * 2**30  # a card with room to spare
rows = [fused_linear.fused_linear_rows(*case, 4) for case in json.loads(sys.argv[1])]
hidden, head, index = torch.randn(1, 8, 16), torch.randn(32, 16), torch.zeros(1, 8, dtype=torch.long)
scored = chunked_hidden_states_selective_log_softmax(hidden, head, index, chunks=None)
print("REPORT" + json.dumps([rows, list(scored.shape)]))
"""


def test_rows_of_a_chunk_are_those_of_unsloth_and_its_setting_for_them_is_unused(tmp_path) -> None:
    shapes = [load_shape(name) for name in MODELS]
    cases = [(rows, shape) for shape in shapes for rows in ROWS]
    asked = json.dumps([(rows, shape.hidden_size, shape.vocab_size) for rows, shape in cases])
    run = subprocess.run(
        [sys.executable, "-c", ASK, asked], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert "REPORT" in run.stdout, run.stderr[-2000:]
    found, scored = json.loads(run.stdout.partition("REPORT")[2].splitlines()[0])
    assert found == [chunk_rows(rows, shape) for rows, shape in cases]
    assert scored == [1, 8]  # chunks=None fails if the number of chunks is used
