"""Functions in TRL's and verl's form score unchanged, in this process and in one that can be killed."""

from pathlib import Path

import pytest

from lowmem_rl.errors import RewardError, TaskError
from lowmem_rl.example import Example
from lowmem_rl.rewards.adversarial_cases import general_cases
from lowmem_rl.rewards.isolated import isolated
from lowmem_rl.rewards.reward import Reward, RewardFailed, RewardSet, Rollout, score_all, try_all
from lowmem_rl.rewards.reward_check import check_rewards, refuse
from lowmem_rl.rewards.reward_registry import load_reward, load_reward_set

PROMPT = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2 + 3?"})
EXTRA = {"difficulty": 2, "numbers": [2, 3], "data_source": "openai/gsm8k", "extra_info": {"index": 7}}
EXAMPLES = [
    Example("sums/train/0", PROMPT, "5", extra=EXTRA),
    Example("sums/train/1", PROMPT, "6", level=1, extra=EXTRA | {"difficulty": 3}),
]
TEXTS = ["It is 5", "It is 5."]
ROLLOUT = Rollout(TEXTS, EXAMPLES)


def load(tmp_path: Path, body: str, name: str = "f") -> Reward:
    (tmp_path / "mine.py").write_text(body)
    return load_reward(f"{tmp_path}/mine.py:{name}")


OURS = {
    "any names": "def f(c, e): return c.endswith(e.answer)",
    "*args": "def f(*args): return args[0].endswith(args[1].answer)",
    "by name only": "def f(*, completion, example): return completion.endswith(example.answer)",
    "by name in another order": "def f(example, completion): return completion.endswith(example.answer)",
    "more with defaults": "def f(completion, example, bonus=0): return completion.endswith(example.answer) + bonus",
    "async": "async def f(completion, example): return completion.endswith(example.answer)",
    "partial": """
from functools import partial
def g(sign, completion, example): return sign * completion.endswith(example.answer)
f = partial(g, 1)
""",
    "undecorated": """
def quiet(g):
    def wrapper(*args, **kwargs): return g(*args, **kwargs)
    return wrapper
@quiet
def f(completion, example): return completion.endswith(example.answer)
""",
    "cached": """
from functools import lru_cache
@lru_cache
def g(text, answer): return text.endswith(answer)
f = lambda completion, example: g(completion, example.answer)
""",
}
TRL = {
    "text": "def f(completions, answer, **kwargs): return [c.endswith(a) for c, a in zip(completions, answer)]",
    "messages": """
def f(prompts, completions, answer, **kwargs):
    assert prompts[0][-1]["content"] == "What is 2 + 3?"
    return [c[0]["content"].endswith(a) for c, a in zip(completions, answer)]
""",
    "messages read by a helper": """
def texts(completions): return [c[-1].get("content") for c in completions]
def f(completions, answer, **kwargs): return [c.endswith(a) for c, a in zip(texts(completions), answer)]
""",
    "annotated as messages": """
from operator import itemgetter
text = itemgetter("content")
def f(completions: list[list[dict[str, str]]], answer: list[str], **kwargs) -> list[float]:
    return [text(c[0]).endswith(a) for c, a in zip(completions, answer)]
""",
    "text that asks a model with messages": """
def ask(messages): return messages[0]["content"].endswith(messages[1]["content"])
def f(completions: "list[str]", answer, **kwargs):
    return [ask([{"role": "user", "content": c}, {"content": a}]) for c, a in zip(completions, answer)]
""",
    "without kwargs": "def f(completions, answer): return [c.endswith(a) for c, a in zip(completions, answer)]",
    "only kwargs": "def f(**kwargs): return [c.endswith(a) for c, a in zip(kwargs['completions'], kwargs['answer'])]",
    "*args, **kwargs": """
def f(*args, **kwargs): return [c.endswith(a) for c, a in zip(kwargs['completions'], kwargs['solution'])]
""",
    "keyword-only": """
def f(*, completions, ground_truth, **kwargs): return [c.endswith(a) for c, a in zip(completions, ground_truth)]
""",
    "further *args": """
def f(completions, *args, answer=None): return [c.endswith(a) for c, a in zip(completions, answer)]
""",
    "async": """
import asyncio
async def one(c, a):
    await asyncio.sleep(0)
    return c.endswith(a)
async def f(completions, answer, **kwargs):
    return await asyncio.gather(*(one(c, a) for c, a in zip(completions, answer)))
""",
    "a callable": """
class Reading:
    def text(self, message): return message["content"]
class F(Reading):
    def __init__(self, end=""): self.end = end
    def __call__(self, completions, answer, **kwargs):
        return [self.text(c[0]).endswith(a + self.end) for c, a in zip(completions, answer)]
f = F()
""",
    "a class": """
class f:
    def __call__(self, completions, answer, **kwargs): return [c.endswith(a) for c, a in zip(completions, answer)]
""",
    "an async callable": """
class F:
    async def __call__(self, completions, answer, **kwargs): return [c.endswith(a) for c, a in zip(completions, answer)]
f = F()
""",
    "a partial": """
from functools import partial
def g(completions, answer, end, **kwargs): return [c.endswith(a + end) for c, a in zip(completions, answer)]
f = partial(g, end="")
""",
    "a lambda": "f = lambda completions, answer, **kw: [c.endswith(a) for c, a in zip(completions, answer)]",
    "decorated": """
import functools
def noisy(g):
    @functools.wraps(g)
    def wrapper(*args, **kwargs):
        print('scoring')
        return g(*args, **kwargs)
    return wrapper
@noisy
def f(completions, answer): return [c.endswith(a) for c, a in zip(completions, answer)]
""",
    "decorated without wraps": """
def noisy(g):
    def wrapper(*args, **kwargs): return g(*args, **kwargs)
    return wrapper
@noisy
def f(completions, answer): return [c.endswith(a) for c, a in zip(completions, answer)]
""",
    "decorated into TRL's form": """
import functools
def each(g):
    @functools.wraps(g)
    def wrapper(completions, answer, **kwargs): return [g(c, a) for c, a in zip(completions, answer)]
    return wrapper
@each
def f(text, gold): return text.endswith(gold)
""",
    "a decorated method": """
def noisy(g):
    def wrapper(*args, **kwargs): return g(*args, **kwargs)
    return wrapper
class F:
    @noisy
    def __call__(self, completions, answer): return [c.endswith(a) for c, a in zip(completions, answer)]
f = F()
""",
    "from a factory": """
def make(end):
    def inner(completions, answer, **kwargs): return [c.endswith(a + end) for c, a in zip(completions, answer)]
    return inner
f = make("")
""",
    "arrays": """
import numpy as np
def f(completions, answer, **kwargs): return np.array([c.endswith(a) for c, a in zip(completions, answer)])
""",
    "countdown's columns": """
def f(completions, target, nums, **kwargs):
    assert nums == [[2, 3]] * len(target)
    return [c.endswith(str(t)) for c, t in zip(completions, target)]
""",
    "a default that no column replaces": """
def f(completions, answer, target=2, difficulty=1, level="easy", **kwargs):
    assert (target, level) == (2, "easy") and 1 not in difficulty
    return [c.endswith(a) for c, a in zip(completions, answer)]
""",
    "state and logs": """
def f(completions, answer, trainer_state, log_metric=None, log_extra=None, **kwargs):
    log_metric("mean", 0.5 + trainer_state.global_step / max(1, trainer_state.max_steps))
    log_extra("answer", answer)
    return [c.endswith(a) for c, a in zip(completions, answer)]
""",
    "pydantic": """
from pydantic import BaseModel, validate_call
class Message(BaseModel):
    content: str
@validate_call
def f(completions: list[list[dict[str, str]]], answer: list[str]):
    return [Message(**c[0]).content.endswith(a) for c, a in zip(completions, answer)]
""",
}
VERL = {
    "as documented": """
def f(data_source, solution_str, ground_truth, extra_info=None):
    assert (data_source, extra_info["index"]) == ("openai/gsm8k", 7)
    return solution_str.endswith(ground_truth)
""",
    "a dictionary": """
def f(data_source, solution_str, ground_truth, extra_info):
    return {"score": solution_str.endswith(ground_truth), "acc": True}
""",
    "a model": """
from pydantic import BaseModel
class Result(BaseModel):
    score: float
def f(solution_str, ground_truth, **kwargs): return Result(score=solution_str.endswith(ground_truth))
""",
    "options": """
def f(solution_str, ground_truth, method="strict", format_score=0.0, score=1.0):
    return score if solution_str.endswith(ground_truth) else format_score
""",
    "async": """
async def f(data_source, solution_str, ground_truth, extra_info, **kwargs):
    return {"score": solution_str.endswith(ground_truth)}
""",
    "only kwargs": "def f(**kwargs): return kwargs['solution_str'].endswith(kwargs['ground_truth'])",
    "a batch": """
def f(data_sources, solution_strs, ground_truths, extra_infos):
    return [{"score": float(s.endswith(t))} for s, t in zip(solution_strs, ground_truths)]
""",
    "a partial": """
from functools import partial
def g(data_source, solution_str, ground_truth, extra_info, model): return solution_str.endswith(ground_truth)
f = partial(g, model="none")
""",
}


@pytest.mark.parametrize(
    "body", [b for forms in (OURS, TRL, VERL) for b in forms.values()], ids=[*OURS, *TRL, *(f"verl {v}" for v in VERL)]
)
def test_a_function_in_any_form_scores_unchanged(tmp_path: Path, body: str) -> None:
    assert score_all(load(tmp_path, body), ROLLOUT) == [1.0, 0.0]


@pytest.mark.parametrize("body", [OURS["async"], TRL["messages"], TRL["async"], TRL["a callable"], VERL["async"]])
def test_it_scores_equally_where_it_can_be_killed(tmp_path: Path, body: str) -> None:
    with isolated(RewardSet((load(tmp_path, body),), (1.0,))) as rewards:
        assert score_all(rewards.rewards[0], ROLLOUT) == [1.0, 0.0]
        assert rewards.score(TEXTS[0], EXAMPLES[0]).reward == 1.0


@pytest.mark.parametrize("kind", ["isolated", "here"])
def test_a_batch_is_one_call(tmp_path: Path, kind: str) -> None:
    reward = load(tmp_path, "def f(completions, **kwargs): return [len(completions)] * len(completions)")
    many = Rollout(["a"] * 64, [EXAMPLES[0]] * 64)
    with isolated(RewardSet((reward,), (1.0,))) as rewards:
        assert set(score_all(rewards.rewards[0] if kind == "isolated" else reward, many)) == {64.0}


def test_what_trl_passes_comes_from_the_rollout(tmp_path: Path) -> None:
    body = "def f(completion_ids, trainer_state): return [len(i) + trainer_state.global_step for i in completion_ids]"
    reward = load(tmp_path, body)
    assert score_all(reward, Rollout(TEXTS, EXAMPLES, [[1, 2], [3]], {"global_step": 10})) == [12.0, 11.0]
    assert score_all(reward, ROLLOUT) == [3.0, 4.0]  # without ids: words and signs


def test_none_means_that_the_reward_does_not_apply(tmp_path: Path) -> None:
    body = "def f(completions, difficulty, **kw): return [None if d > 2 else 1.0 for d in difficulty]"
    assert score_all(load(tmp_path, body), ROLLOUT) == [1.0, None]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("[1.0]", "returned 1 scores for 2 completions"),
        ("[1.0] * 3", "returned 3 scores for 2 completions"),
        ("0.5", "returned 0.5, not a list of 2 scores"),
        ("None", "returned None, not a list of 2 scores"),
        ("'ab'", "returned 'ab', not a list of 2 scores"),
        ("{'a': 1, 'b': 2}", "not a list of 2 scores"),
        ("['a', 'b']", "returned 'a', which is neither None nor a number"),
        ("[float('nan')] * 2", "returned nan, which is not a finite number"),
    ],
)
def test_what_is_not_one_score_each_is_an_error(tmp_path: Path, returned: str, message: str) -> None:
    reward = load(tmp_path, f"def f(completions, **kwargs): return {returned}")
    with pytest.raises(RewardFailed, match=message) as failed:
        score_all(reward, ROLLOUT)
    assert failed.value.hint
    assert "(completion, example)" not in failed.value.hint  # it is in TRL's form
    with pytest.raises(RewardError, match=r"\d scores? for|not a list of \d|neither None|not a finite"):
        refuse(check_rewards(RewardSet((reward,), (1.0,)), general_cases()))


def test_a_completion_on_which_a_batch_fails_costs_only_itself(tmp_path: Path) -> None:
    body = "import os\ndef f(completions, **kwargs): return [{act} if c.endswith('.') else 1.0 for c in completions]"
    for act in ("1 / 0", "os._exit(3)"):
        reward = load(tmp_path, body.format(act=act))
        with isolated(RewardSet((reward,), (1.0,))) as rewards:
            first, second = try_all(rewards.rewards[0], ROLLOUT)
        assert first == 1.0
        assert isinstance(second, RewardFailed)
        assert "completion 'It is 5.'" in str(second)


@pytest.mark.slow
def test_a_batch_that_hangs_is_bounded_and_named(tmp_path: Path) -> None:
    body = "def f(completions, **kwargs): return [9**9**9**9 if c.endswith('.') else 1.0 for c in completions]"
    with isolated(RewardSet((load(tmp_path, body),), (1.0,)), limit_s=1.0) as rewards:
        scores = try_all(rewards.rewards[0], Rollout([*TEXTS, *(["."] * 20)], [EXAMPLES[0]] * 22))
    assert scores[0] == 1.0
    assert {score.fault for score in scores[1:] if isinstance(score, RewardFailed)} == {"hangs"}


def test_a_missing_column_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    reward = load(tmp_path, "def f(completions, rubric, **kwargs): return [0.0] * len(completions)")
    with pytest.raises(RewardFailed, match=r"'f' failed: needs rubric; what the examples have is .*difficulty"):
        score_all(reward, ROLLOUT)


@pytest.mark.parametrize(
    "body",
    [
        "def f(): return 1.0",
        "def f(text): return 1.0",
        "def f(prompt, completion, example): return 1.0",
        "def f(completion, answer): return 1.0",
        "def f(response, ground_truth): return 1.0",
        "def f(*, completion, answer): return 1.0",
        "def f(prompt, completion): return 1.0",
        "def f(question, text, **kwargs): return 1.0",
        "def f(problem, response): return 1.0",
        "def f(text, reference): return 1.0",
        "f = lambda output, gold: 1.0",
        "f = max",
        "f = 3",
        "f = [len]",
    ],
)
def test_a_signature_of_no_form_is_refused_with_the_three(tmp_path: Path, body: str) -> None:
    with pytest.raises(TaskError, match=r"mine\.py:f ") as refused:
        load(tmp_path, body)
    for form in ("(completion, example)", "(completions, **kwargs)", "(data_source, solution_str, ground_truth"):
        assert form in refused.value.hint


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("class f:\n    def __init__(self, n): ...\n    def __call__(self, completions): ...", "without arguments"),
        ("def f(solution_str, ground_truth, reward_router_address): ...", "needs reward_router_address"),
    ],
)
def test_what_cannot_be_called_says_why(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        load(tmp_path, body)


def test_a_method_is_named_by_its_path(tmp_path: Path) -> None:
    body = """
class Scorer:
    def ends(self, completions, answer, **kwargs): return [c.endswith(a) for c, a in zip(completions, answer)]
    @staticmethod
    def short(completion, example): return -len(completion)
scorer = Scorer()
"""
    assert score_all(load(tmp_path, body, "scorer.ends"), ROLLOUT) == [1.0, 0.0]
    assert load(tmp_path, body, "Scorer.short").name == "Scorer.short"
    with pytest.raises(TaskError, match=r"no reward named 'scorer\.end'") as refused:
        load(tmp_path, body, "scorer.end")
    assert "scorer" in refused.value.hint or "ends" in refused.value.hint


def test_a_neighbour_that_is_imported_when_it_runs_shows_the_form(tmp_path: Path) -> None:
    (tmp_path / "reading_of_mine.py").write_text(
        "def texts(completions): return [c[0]['content'] for c in completions]\n"
    )
    body = """
def f(completions, answer, **kwargs):
    from reading_of_mine import texts
    return [c.endswith(a) for c, a in zip(texts(completions), answer)]
"""
    assert score_all(load(tmp_path, body), ROLLOUT) == [1.0, 0.0]


def test_rewards_of_one_name_are_known_by_their_files(tmp_path: Path) -> None:
    for file in ("a.py", "b.py"):
        (tmp_path / file).write_text("def f(completions, **kwargs): return [1.0] * len(completions)\n")
    rewards = load_reward_set({f"{tmp_path}/a.py:f": 1.0, f"{tmp_path}/b.py:f": 2.0, "boxed_answer": 1.0})
    assert rewards.score("", EXAMPLES[0]).scores == {
        f"{tmp_path}/a.py:f": 1.0, f"{tmp_path}/b.py:f": 1.0, "boxed_answer": 0.0
    }  # fmt: skip
    assert rewards.score("", EXAMPLES[0]).reward == 3.0


def test_what_another_form_pays_for_is_not_known_so_its_faults_are_notes(tmp_path: Path) -> None:
    reward = load(tmp_path, "def f(completions, **kwargs): return [0.0] * len(completions)")
    findings = check_rewards(RewardSet((reward,), (1.0,)), general_cases())
    assert [(one.level, one.fault) for one in findings] == [("note", "constant")]
    refuse(findings)


def test_a_function_that_needs_the_main_thread_has_it(tmp_path: Path) -> None:
    body = """
import signal
def f(completions, **kwargs):
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    return [float(len(c)) for c in completions]
"""
    with isolated(RewardSet((load(tmp_path, body),), (1.0,))) as rewards:
        assert score_all(rewards.rewards[0], ROLLOUT) == [7.0, 8.0]
        assert check_rewards(rewards, general_cases())[0].level == "note"
