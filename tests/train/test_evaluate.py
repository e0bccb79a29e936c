"""The real evaluation of the real tiny model: stopped and taken up again, sampled, and how far it is from its base."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lowmem_rl.config.compose import resolve
from lowmem_rl.engine.adapter import weights_digest
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.logprobs import encode_turn, kl_from_base
from lowmem_rl.engine.policy import Policy, load_policy, prepare_process
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.engine.sampling import GREEDY
from lowmem_rl.errors import RunDirError
from lowmem_rl.evaluation import evaluate as evaluate_module
from lowmem_rl.evaluation.eval_items import read_items
from lowmem_rl.evaluation.eval_result import EvalResult
from lowmem_rl.evaluation.eval_set import EvalSet, held_out
from lowmem_rl.evaluation.evaluate import EvalFiles, evaluate
from lowmem_rl.storage.run_dir import RunDir, read_json, write_json
from lowmem_rl.training.eval_schedule import AFTER, BEFORE, EvalSchedule, file_name

SETTINGS = ("memory.checkpointing=none", "eval.examples=24", "eval.quick_examples=4", "eval.batch=8")


def config_of(*settings: str):
    return resolve(preset="tiny-cpu", settings=[*SETTINGS, "rollout.weights=merged", *settings]).config


@pytest.fixture(scope="module")
def policy() -> Policy:
    config = config_of()
    prepare_process(config, Device("cpu", "float32"))
    return load_policy(config, Device("cpu", "float32"))


@pytest.fixture
def moved(policy: Policy) -> Iterator[Policy]:
    """The policy after some learning, and back again."""
    generator = torch.Generator().manual_seed(0)
    trained = [parameter for name, parameter in policy.model.named_parameters() if "lora_B" in name]
    for parameter in trained:
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.02
    yield policy
    for parameter in trained:
        parameter.data = torch.zeros_like(parameter)


def asked(samples: int = 0) -> EvalSet:
    config = config_of(f"eval.samples={samples}")
    return held_out(config, config.task)


def steady(result: EvalResult) -> EvalResult:
    return replace(result, seconds=0.0)


def files_in(path: Path) -> EvalFiles:
    return EvalFiles.of(RunDir(path), "x")


def test_on_a_cpu_a_prompt_of_any_length_is_asked(tmp_path) -> None:
    long, *others = asked().examples
    long = replace(long, prompt=({"role": "user", "content": "7" * 1100},))  # the model has 1,024 positions
    eval_set = replace(asked(), examples=[long, *others[:3]])
    policy = load_policy(config_of(), Device("cpu", "float32"), [eval_set.use])
    evaluations = EvalSchedule(RunDir(tmp_path), config_of(), Sampler(policy, config_of()), eval_set)
    assert evaluations.own.examples == eval_set.examples


def test_an_evaluation_that_is_stopped_goes_on_where_it_was(policy, tmp_path) -> None:
    sampler = Sampler(policy, config_of())
    whole = evaluate(sampler, asked(2), files_in(tmp_path / "whole"), step=0)
    assert (whole.num_examples, whole.samples, whole.in_domain) == (24, 2, True)
    stopped, seen = files_in(tmp_path / "stopped"), []

    def stop(done: int) -> None:
        if done == 40:  # 24 greedy completions, and a part of the samples
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(sampler, asked(2), stopped, step=0, on_progress=stop)
    torn = stopped.sampled.read_bytes()[:-20]
    stopped.sampled.write_bytes(torn)
    again = evaluate(sampler, asked(2), stopped, step=0, on_progress=seen.append)
    assert seen[0] == 24
    assert len(seen) < 24 + 16  # what was answered is not asked again
    assert steady(again) == steady(whole)
    for name in ("items", "sampled"):
        assert getattr(stopped, name).read_bytes() == getattr(files_in(tmp_path / "whole"), name).read_bytes()


def test_more_examples_and_samples_ask_for_the_new_ones_alone(policy, tmp_path) -> None:
    sampler, files, seen = Sampler(policy, config_of()), files_in(tmp_path), []
    few = replace(asked(1), examples=asked().examples[:10])
    evaluate(sampler, few, files, step=0)
    evaluate(sampler, asked(2), files, step=0, on_progress=seen.append)
    assert seen[0] == 10
    assert seen.count(24 + 10) == 1
    assert len(read_items(files.sampled)) == 48


def test_answers_of_other_weights_or_settings_are_asked_for_again(moved, tmp_path) -> None:
    sampler, files, seen = Sampler(moved, config_of()), files_in(tmp_path), []
    few = replace(asked(), examples=asked().examples[:4])
    evaluate(sampler, few, files, step=0)
    evaluate(sampler, replace(few, max_tokens=30), files, step=0, on_progress=seen.append)
    assert seen[0] == 0
    digest = weights_digest(moved)
    next(parameter for name, parameter in moved.model.named_parameters() if "lora_B" in name).data[0, 0] += 1e-3
    assert weights_digest(moved) != digest
    seen.clear()
    evaluate(sampler, replace(few, max_tokens=30), files, step=0, on_progress=seen.append)
    assert seen == [0, 1, 2, 3, 4]
    assert len(read_items(files.items)) == 4


def test_the_distance_from_the_base_is_the_exact_kl_of_a_plain_forward(moved) -> None:
    example = asked().examples[0]
    rows = [
        encode_turn(moved, example.prompt, text, truncated=cut)
        for text, cut in (("<think>12</think>\\boxed{7}", False), ("70", True))
    ]
    expected, tokens = 0.0, 0
    for prompt, completion in rows:
        ids = torch.tensor([[*prompt, *completion]])
        with torch.no_grad():
            mine = moved.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
            with moved.model.disable_adapter():
                base = moved.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
        expected += float((mine.exp() * (mine - base)).sum())
        tokens += len(completion)
    assert kl_from_base(moved, rows, batch=8) == pytest.approx(expected / tokens, rel=1e-4)
    assert expected > 0.01
    assert rows[0][1][-1] == moved.tokenizer.eos_token_id


def test_the_distance_is_the_same_however_many_rows_a_forward_reads(moved) -> None:
    prompt = asked().examples[0].prompt
    rows = [encode_turn(moved, prompt, text, truncated=True) for text in ("1", "<think>12</think>\\boxed{7}", "70")]
    lengths, read = [len(context) + len(ids) for context, ids in rows], []
    hook = moved.model.get_base_model().model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    found = [kl_from_base(moved, rows, batch=batch) for batch in (1, 2, 8)]
    hook.remove()
    assert found == pytest.approx(found[:1] * 3, rel=1e-4)
    each, two = [(1, length) for length in lengths], [(2, max(lengths[:2])), (1, lengths[2])]
    assert read == 2 * each + 2 * two + 2 * [(3, max(lengths))]


def test_an_evaluation_takes_the_distance_in_forwards_of_a_micro_batch(moved, tmp_path, monkeypatch) -> None:
    config, asked_for = config_of(), []
    monkeypatch.setattr(evaluate_module, "kl_from_base", lambda policy, rows, *, batch: asked_for.append(batch))
    evaluate(Sampler(moved, config), replace(asked(), examples=asked().examples[:2]), files_in(tmp_path), step=0)
    assert asked_for == [config.micro_batch]


def test_an_adapter_that_is_untrained_is_at_its_base_and_a_model_without_one_is_not_measured(policy, tmp_path) -> None:
    few = replace(asked(), examples=asked().examples[:4])
    sampler = Sampler(policy, config_of())
    assert evaluate(sampler, few, files_in(tmp_path), step=0).kl_nats == pytest.approx(0.0, abs=1e-6)
    assert evaluate(sampler, few, files_in(tmp_path), step=0, measures_kl=False).kl_nats is None


def test_with_quantized_weights_greedy_text_is_that_of_generate_token_by_token(moved) -> None:
    found = []
    for settings in (("rollout.engine=lowmem", "rollout.weights=quantized"), ("rollout.engine=generate",)):
        config = resolve(preset="tiny-cpu", settings=[*SETTINGS, *settings]).config
        prompts = [example.prompt for example in asked().examples]
        answers = Sampler(moved, config).answers(prompts, GREEDY, max_tokens=64, batch=8)
        found.append([completion for _, completion in sorted(answers, key=lambda pair: pair[0])])
    assert found[0] == found[1]


def test_answers_come_as_they_end(moved) -> None:
    prompts = [example.prompt for example in asked().examples]
    answers = list(Sampler(moved, config_of()).answers(prompts, GREEDY, max_tokens=64, batch=24))
    lengths = [completion.tokens for _, completion in answers]
    assert lengths == sorted(lengths)
    assert sorted(number for number, _ in answers) == list(range(24))


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


def evaluations_of(policy: Policy, run_dir: RunDir, *settings: str) -> EvalSchedule:
    config = config_of("grpo.steps=4", *settings)
    return EvalSchedule(run_dir, config, Sampler(policy, config), held_out(config, config.task))


def grade_as(run_dir: RunDir, name: str, right: int) -> None:
    """Lets the first items of an evaluation that is there already be right, with any text."""
    lines = run_dir.eval_items(name).read_text().splitlines()
    kept = [
        line.replace('"correct": true', '"correct": false').replace(
            '"correct": false', f'"correct": {str(number < right).lower()}'
        )
        for number, line in enumerate(lines)
    ]
    run_dir.eval_items(name).write_text("".join(f"{line}\n" for line in kept))


def test_the_best_is_chosen_on_the_shared_items_and_of_equal_ones_is_the_earlier(moved, run_dir) -> None:
    schedule = evaluations_of(moved, run_dir)
    for step, right in ((1, 1), (2, 3), (3, 3)):
        schedule.during(step)
        grade_as(run_dir, f"step-{step:06d}", right)
        run_dir.evaluations.unlink()
        schedule = evaluations_of(moved, run_dir)
        for earlier in range(1, step + 1):
            schedule.during(earlier)
    schedule.before()
    assert (schedule.best.step, schedule.best.name, schedule.best.pass_at_1) == (2, "step-000002", 0.75)
    written = read_json(run_dir.evaluations)["best"]
    assert (written["step"], written["num_examples"], written["chosen_of"]) == (2, 4, 4)
    assert "expect less on others" in written["note"]
    assert (run_dir.best / "adapter_model.safetensors").is_file()


def test_a_run_that_is_taken_up_again_knows_its_evaluations(moved, run_dir) -> None:
    first = evaluations_of(moved, run_dir)
    before, second = first.before(), evaluations_of(moved, run_dir)
    assert second.before() == before
    assert second.best == first.best
    second.during(2)
    second.after()
    again = evaluations_of(moved, run_dir)
    assert again.reported == second.reported
    assert again.reported["comparison"]["paired"]["num_items"] == 24
    again.reported["out_of_domain"] = {"math": {BEFORE: {"step": 0}, AFTER: {"step": 4}, "comparison": {}}}
    again.forget_after(1)
    assert (again.reported["during"], again.reported[AFTER], again.reported[BEFORE]["step"]) == ([], None, 0)
    assert again.reported["out_of_domain"] == {"math": {BEFORE: {"step": 0}}}


def test_an_evaluation_that_could_not_keep_its_adapter_is_not_done(moved, run_dir) -> None:
    schedule = evaluations_of(moved, run_dir)
    schedule.before()
    schedule.reported["best"]["pass_at_1"] = -1.0  # any result is better
    run_dir.best.with_name(".best.aside").write_text("in the way")
    with pytest.raises(FileExistsError):
        schedule.during(2)
    assert not evaluations_of(moved, run_dir).has(2)


@pytest.mark.parametrize("damaged", [{"best": {"step": 1}}, {"during": [{}]}, {"out_of_domain": {"math": 1}}])
def test_a_file_that_holds_no_evaluations_is_named(damaged, policy, run_dir) -> None:
    write_json(run_dir.evaluations, damaged)
    with pytest.raises(RunDirError, match="eval.json"):
        evaluations_of(policy, run_dir)


def test_tasks_of_one_class_name_in_two_files_have_files_of_their_own() -> None:
    names = {file_name(task) for task in ("arithmetic", "a/x.py:Task", "b/x.py:Task")}
    assert len(names) == 3
    assert all(name == Path(name).name and ":" not in name for name in names)
