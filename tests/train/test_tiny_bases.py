"""The lessons of the tiny bases: two ways to answer, of which only one is worth learning."""

import random
from dataclasses import replace
from types import ModuleType

import pytest

from lowmem_rl.engine.policy import import_unsloth
from lowmem_rl.evaluation.grader import grader_of
from lowmem_rl.rewards.reward_registry import load_reward
from lowmem_rl.tasks.task_registry import TASKS

BASES = ("arithmetic", "countdown", "matrix_inverse", "program_synthesis")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    import_unsloth()  # before the script imports transformers: other tests train in this process
    import scripts.make_tiny_model

    return scripts.make_tiny_model


def means(recipe, reward: str) -> tuple[float, float]:
    """Returns the mean reward of the careless way and of the working."""
    score, problems = load_reward(reward).score, recipe.taught_problems(40)
    guess, work = (sum(score(way(e), e) or 0.0 for e in problems) for way in (recipe.guess, recipe.work))
    return guess / len(problems), work / len(problems)


@pytest.mark.parametrize("task", BASES)
def test_working_is_always_right_and_does_not_start_like_a_careless_answer(script, task) -> None:
    recipe = script.RECIPES[task]
    grader = grader_of(recipe.task_at_work)
    for example in recipe.taught_problems(40):
        assert grader.is_right(recipe.work(example), example)
        assert recipe.guess(example).startswith(recipe.guess_opens)
        assert not recipe.work(example).startswith(recipe.guess_opens)


def test_every_format_or_partial_credit_reward_has_something_to_teach(script) -> None:
    for task, rewards in {
        "countdown": ("countdown", "think_format", "answer_tags", "tag_count"),
        "matrix_inverse": ("matrix_rows", "matrix_frobenius", "matrix_l1"),
        "program_synthesis": ("program_synthesis", "repetition", "language_consistency"),
    }.items():
        for reward in rewards:
            careless, working = means(script.RECIPES[task], reward)
            assert working > careless + 0.25, (task, reward)


@pytest.mark.parametrize("task", BASES)
def test_no_held_out_problem_is_taught(script, task) -> None:
    recipe = script.RECIPES[task]
    taught = {example.question for example in recipe.taught_problems(800)}
    assert taught.isdisjoint(example.question for example in recipe.held_out_problems(200))


@pytest.mark.parametrize("task", BASES)
def test_a_tokenizer_decodes_its_lessons_and_keeps_completions_within_the_limit(script, task, tmp_path) -> None:
    recipe = script.RECIPES[task]
    tokenizer = script.make_tokenizer(recipe, tmp_path)  # raises if text does not come back
    ways = [way(example) for way in (recipe.guess, recipe.work) for example in recipe.taught_problems(200)]
    assert max(map(len, tokenizer(ways).input_ids)) < recipe.longest_completion


def test_the_words_of_a_prompt_are_a_token_each_but_its_numbers_are_not(script, tmp_path) -> None:
    recipe = script.RECIPES["matrix_inverse"]
    tokenizer = script.make_tokenizer(recipe, tmp_path)
    prompt = script.render(recipe.taught_problems(1)[0].prompt)
    assert len(tokenizer(prompt).input_ids) < 50 < len(prompt) / 2
    assert len(tokenizer("-12").input_ids) == 3


def test_a_base_learns_from_its_lessons(script, tmp_path) -> None:
    recipe = replace(script.RECIPES["program_synthesis"], practice_steps=30, steps=30, batch=4)
    tokenizer = script.make_tokenizer(recipe, tmp_path)
    script.torch.manual_seed(0)
    model, lessons = script.new_model(recipe, tokenizer), script.course(recipe, random.Random(0))
    batch = script.as_batch(tokenizer, [next(lessons) for _ in range(16)])
    before = model(**batch).loss.item()
    script.teach(recipe, model, tokenizer, lessons)
    assert model(**batch).loss.item() < before / 2


def test_the_script_knows_no_other_task(script) -> None:
    assert set(script.RECIPES) == set(BASES) <= set(TASKS)
