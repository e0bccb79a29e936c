"""`reward.py` as verl loads it: by its path, from the folder that was written."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lowmem_rl.chat_templates.model_template import template_of_model
from lowmem_rl.config.run_config import TaskConfig
from lowmem_rl.example import Example
from lowmem_rl.rewards.reward_registry import load_reward_set
from lowmem_rl.scale_out import folder
from lowmem_rl.scale_out.rows import row_of

EXAMPLE = Example("a/0", ({"role": "user", "content": "2 * 3?"},), "6", extra={"accepted_answers": ["six"]})


@pytest.fixture
def compute_score(tmp_path: Path) -> Iterator[Callable[..., dict[str, float]]]:
    (tmp_path / "rewards.py").write_text(
        "import os\n"
        "def asks(completions, prompts, **_):\n    return [float('2 * 3' in str(prompt)) for prompt in prompts]\n"
        "def fails(completion, example):\n    raise ValueError('on purpose')\n"
    )
    weights = {"boxed_answer": 1.0, "think_format": 0.2}
    weights |= {f"{tmp_path / 'rewards.py'}:{name}": 0.5 for name in ("asks", "fails")}
    folder.write_json(tmp_path / "reward.json", {"rewards": weights, "task": TaskConfig().model_dump(mode="json")})
    folder._copy("reward.py", tmp_path / "reward.py")
    namespace: dict = {"__file__": str(tmp_path / "reward.py"), "__name__": "reward"}
    exec(compile((tmp_path / "reward.py").read_text(), "reward.py", "exec"), namespace)
    yield namespace["compute_score"]
    namespace["PROCESSES"].close()


def row(prefill: str) -> dict:
    found = row_of(EXAMPLE, "train", 0, "arithmetic", template_of_model("tiny"))
    return found["extra_info"] | {"prefill": prefill}


def test_it_scores_as_our_rewards_do_with_what_the_template_opened(compute_score, caplog):
    ours = load_reward_set({"boxed_answer": 1.0, "think_format": 0.2})
    for prefill, text in (("<think>\n", "a</think>\\boxed{6}"), ("", "a</think>\\boxed{6}"), ("", "six")):
        found = compute_score("lowmem_rl/arithmetic", text, "6", row(prefill), num_turns=None)
        scored = ours.score(prefill + text, EXAMPLE)
        assert found["score"] == scored.reward + 0.5
        assert found["scores/think_format"] == scored.scores["think_format"]
        assert found["scores/asks"] == 1.0
        assert found["scores/fails"] == 0.0
    assert "on purpose" in caplog.text


def test_right_and_strictly_right_are_the_runs_own_grader(compute_score):
    found = compute_score("lowmem_rl/arithmetic", "It is 6.", "6", row(""))
    assert (found["acc"], found["strict"]) == (1.0, 0.0)


def test_threads_may_score_at_once(compute_score):
    with ThreadPoolExecutor(8) as threads:
        texts = [f"\\boxed{{{number}}}" for number in range(12)]
        found = threads.map(lambda text: compute_score("x", text, "6", row(""))["acc"], texts)
    assert [*found] == [float(number == 6) for number in range(12)]


def test_importing_it_starts_no_process_and_no_gpu_package(tmp_path: Path):
    folder._copy("reward.py", tmp_path / "reward.py")
    program = (
        "import sys, threading, subprocess\n"
        "def refuse(*args, **kwargs): raise SystemExit('a process was started')\n"
        "subprocess.Popen = refuse\n"
        "import reward\n"
        "import json; print(json.dumps([name for name in ('torch', 'transformers', 'trl') if name in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
