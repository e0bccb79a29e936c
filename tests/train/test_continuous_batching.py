"""Our sampler against transformers' own `generate` and forward, on small models of each known architecture."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lowmem_rl.engine import continuous_batching
from lowmem_rl.engine.continuous_batching import SampledCompletion, StoppingCriteria, sample
from lowmem_rl.engine.decoder import prefill, prefill_packed
from lowmem_rl.engine.decoder_weights import UnsupportedModel, merged, quantized
from lowmem_rl.engine.sampling import GREEDY, SamplingParams, stream_names

VOCABULARY, POSITIONS, STOP = 97, 128, 5
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": POSITIONS,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
ARCHITECTURES = [
    ("qwen2", {"tie_word_embeddings": True}),
    ("qwen3", {"head_dim": 24}),
    ("llama", {"rope_parameters": LLAMA3}),
    ("llama", {"attention_bias": True, "mlp_bias": True}),
    ("mistral", {"sliding_window": None}),
]


def model_of(kind: str, extra: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL, **extra)).eval()
    for parameter in model.parameters():  # biases are zero at first, and logits nearly flat
        parameter.data.normal_(std=0.15)
    return model


@pytest.fixture(scope="module")
def model() -> Any:
    return model_of("qwen2", {})


def prompts_of(lengths: Sequence[int]) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(10, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def greedily(decoder: Any, prompts: list[list[int]], tokens: int, rows: int = 8) -> list[list[int]]:
    limits = StoppingCriteria(frozenset({STOP}), tokens, rows)
    return [row.ids for row in sample(decoder, prompts, stream_names("x", len(prompts)), GREEDY, limits)]


def generated(model: Any, prompt: list[int], tokens: int) -> list[int]:
    ids = torch.tensor([prompt])
    settings = {"do_sample": False, "max_new_tokens": tokens, "eos_token_id": STOP, "pad_token_id": 0}
    return model.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, len(prompt) :].tolist()


@pytest.mark.parametrize(("kind", "extra"), ARCHITECTURES)
@pytest.mark.parametrize("weights", [quantized, merged])
def test_greedy_tokens_are_those_of_generate(kind: str, extra: dict[str, Any], weights: Any) -> None:
    model, prompts = model_of(kind, extra), prompts_of([3, 17, 9, 1])
    assert greedily(weights(model, POSITIONS), prompts, 24) == [generated(model, prompt, 24) for prompt in prompts]


@pytest.mark.parametrize(("kind", "extra"), ARCHITECTURES)
def test_what_all_prompts_begin_with_is_read_once_and_changes_no_token(
    kind: str, extra: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, (beginning, *own) = model_of(kind, extra), prompts_of([30, 1, 7, 12, 4])
    prompts = [beginning + rest for rest in own for _ in range(2)]
    read: list[tuple[int, int]] = []

    def counted(decoder, beginning, own):
        read.append((len(beginning), sum(map(len, own))))
        return prefill_packed(decoder, beginning, own)

    monkeypatch.setattr(continuous_batching, "prefill_packed", counted)
    found = greedily(merged(model, POSITIONS), prompts, 24, rows=8)
    assert found == [generated(model, prompt, 24) for prompt in prompts]
    assert read == [(30, 1 + 7 + 12 + 4)]
    monkeypatch.setattr(continuous_batching, "PACKED_TOKENS", 40)
    assert greedily(merged(model, POSITIONS), prompts, 24, rows=8) == found
    assert len(read) == 1  # three packs of four prompts save too little


@pytest.mark.parametrize(("own", "shared"), [([5, 3, 1, 2], 30), ([5, 0, 1, 2], 29), ([5], 34), ([], 0)])
def test_every_prompt_keeps_a_token_of_its_own(own: list[int], shared: int) -> None:
    prompts = [tuple([7] * 30 + [10 + number] * length) for number, length in enumerate(own)]
    assert continuous_batching.shared_beginning(prompts) == shared


def test_kept_log_probs_are_those_of_the_models_forward(model: Any) -> None:
    prompts = prompts_of([4, 11])
    limits = StoppingCriteria(frozenset({STOP}), 16, 8)
    for prompt, row in zip(
        prompts,
        sample(merged(model, POSITIONS), prompts, ["a", "b"], SamplingParams(temperature=0.7), limits),
        strict=True,
    ):
        logits = model(torch.tensor([prompt + row.ids])).logits[0, len(prompt) - 1 : -1] / 0.7
        expected = logits.log_softmax(-1).gather(-1, torch.tensor(row.ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(row.log_probs), expected.detach(), atol=1e-5, rtol=0)


def sampled(
    model: Any, prompts: list[list[int]], streams: list[str], rows: int, **limits: Any
) -> list[SampledCompletion]:
    bounds = StoppingCriteria(frozenset({STOP, 6, 7, 8}), 40, rows, **limits)
    return sample(merged(model, POSITIONS), prompts, streams, SamplingParams(), bounds)


def ids_of(rows: Sequence[SampledCompletion]) -> list[list[int]]:
    return [row.ids for row in rows]


def test_a_rows_tokens_depend_on_no_other_row(model: Any) -> None:
    prompts = [prompt for prompt in prompts_of([5, 12, 30, 2]) for _ in range(4)]
    streams = stream_names("step 3", 16)
    together = ids_of(sampled(model, prompts, streams, rows=16))
    assert len({len(ids) for ids in together}) > 5  # rows leave at different times
    assert ids_of(sampled(model, prompts, streams, rows=3)) == together
    assert ids_of(sampled(model, prompts, streams, rows=16, reads_once=False, leaves_early=False)) == together
    assert ids_of(sampled(model, prompts[::-1], streams[::-1], rows=5))[::-1] == together
    assert ids_of(sampled(model, prompts[7:8], streams[7:8], rows=1)) == together[7:8]


def test_waiting_prompts_are_read_many_at_once(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def counted(decoder: Any, ids: torch.Tensor, lengths: torch.Tensor) -> Any:
        read.append(len(ids))
        return prefill(decoder, ids, lengths)

    monkeypatch.setattr(continuous_batching, "prefill", counted)
    prompts, streams = prompts_of([5, 12, 30, 2, 7, 9, 3, 8, 4, 6, 11, 10]), stream_names("x", 12)
    found = ids_of(sampled(model, prompts, streams, rows=3))
    assert sum(read) == 12
    assert max(read) <= 2 * 3
    assert len(read) <= 3
    read.clear()
    monkeypatch.setattr(continuous_batching, "READ_AHEAD_TOKENS", 0)
    assert ids_of(sampled(model, prompts, streams, rows=3)) == found
    assert sum(read) == 12
    assert max(read) == 3
    assert len(read) > 3


@torch.inference_mode()
def test_a_waiting_prompt_keeps_only_its_own_keys_and_values(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuous_batching, "READ_AHEAD_TOKENS", 20)
    wave = continuous_batching._ContinuousBatch(
        merged(model, POSITIONS),
        prompts_of([10] * 8),
        stream_names("x", 8),
        GREEDY,
        StoppingCriteria(frozenset({STOP}), 4, 4),
        None,
    )
    wave._fill()
    kept = [part for pair in wave.read.values() for part in pair]
    assert len(wave.read) == 2
    assert sum(part.untyped_storage().nbytes() for part in kept) == sum(part.nbytes for part in kept)


def test_rows_of_one_prompt_differ_and_equal_streams_repeat(model: Any) -> None:
    prompts = prompts_of([6]) * 8
    rows = ids_of(sampled(model, prompts, stream_names("a", 8), rows=8))
    assert len({tuple(ids) for ids in rows}) > 4
    assert rows == ids_of(sampled(model, prompts, stream_names("a", 8), rows=8))
    assert rows != ids_of(sampled(model, prompts, stream_names("b", 8), rows=8))


def test_a_completion_may_be_a_stop_token_alone(model: Any) -> None:
    everything = StoppingCriteria(frozenset(range(VOCABULARY)), 40, 2)
    rows = sample(merged(model, POSITIONS), prompts_of([4, 4, 4]), ["a", "b", "c"], SamplingParams(), everything)
    assert [len(row.ids) for row in rows] == [1, 1, 1]


def test_no_completion_is_longer_than_the_limit(model: Any) -> None:
    rows = sample(merged(model, POSITIONS), prompts_of([4, 7]), ["a", "b"], GREEDY, StoppingCriteria(frozenset(), 9, 2))
    assert [len(row.ids) for row in rows] == [9, 9]


def test_one_row_may_be_a_hundred_times_longer_than_the_rest(model: Any) -> None:
    forced = [[STOP]] * 7 + [[50] * 99 + [STOP]]
    limits = StoppingCriteria(frozenset({STOP}), 100, 8)
    rows = sample(merged(model, POSITIONS), prompts_of([3] * 8), stream_names("x", 8), SamplingParams(), limits, forced)
    assert ids_of(rows) == forced


@pytest.mark.parametrize("check_every", [1, continuous_batching.GPU_CHECK_EVERY])
@pytest.mark.parametrize("rows", [1, 3, 8])
def test_a_looping_row_is_cut_at_the_same_token_with_any_other_rows(
    model: Any, rows: int, check_every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuous_batching, "CPU_CHECK_EVERY", check_every)
    lengths = [3, 170, 20, 170, 11, 170]
    forced = [[50] * (length - 1) + [STOP] for length in lengths]
    limits = StoppingCriteria(frozenset({STOP}), 180, rows, stops_loops=True)
    found = sample(merged(model, 256), prompts_of([3] * 6), stream_names("x", 6), SamplingParams(), limits, forced)
    assert [len(row.ids) for row in found] == [3, 129, 20, 129, 11, 129]


@pytest.mark.parametrize("check_every", [1, continuous_batching.GPU_CHECK_EVERY])
def test_a_loop_that_is_noticed_after_the_limit_ends_at_the_limit(
    model: Any, check_every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuous_batching, "CPU_CHECK_EVERY", check_every)
    limits = StoppingCriteria(frozenset({STOP}), 125, 1, stops_loops=True)
    # The forced tokens end at the limit; the zeros after it continue the loop.
    (found,) = sample(merged(model, 256), prompts_of([3]), ["x"], SamplingParams(), limits, [[0] * 125])
    assert len(found.ids) == 125


@pytest.mark.parametrize("check_every", [1, continuous_batching.GPU_CHECK_EVERY])
def test_nothing_depends_on_how_often_stopped_rows_are_checked(
    model: Any, check_every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, streams = prompts_of([5, 30, 2, 12, 1]), stream_names("x", 5)
    expected = ids_of(sampled(model, prompts, streams, rows=5))
    monkeypatch.setattr(continuous_batching, "CPU_CHECK_EVERY", check_every)
    assert ids_of(sampled(model, prompts, streams, rows=2)) == expected


def test_a_replay_keeps_the_log_probs_of_what_was_forced(model: Any) -> None:
    prompts, streams = prompts_of([5, 9]), ["a", "b"]
    limits = StoppingCriteria(frozenset({STOP}), 12, 2)
    free = sample(merged(model, POSITIONS), prompts, streams, SamplingParams(), limits)
    replayed = sample(merged(model, POSITIONS), prompts, ["c", "d"], SamplingParams(), limits, ids_of(free))
    assert ids_of(replayed) == ids_of(free)
    for one, other in zip(free, replayed, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (AutoConfig.for_model("gpt2", n_embd=32, n_layer=1, n_head=2, vocab_size=VOCABULARY), "not a decoder"),
        (AutoConfig.for_model("olmo2", **SMALL), "model type"),
        (AutoConfig.for_model("mistral", **SMALL, sliding_window=16), "slides over 16"),
        (AutoConfig.for_model("llama", **SMALL, hidden_act="gelu"), "activation"),
        (
            AutoConfig.for_model(
                "llama", **SMALL, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
            ),
            "rotary",
        ),
    ],
)
def test_a_model_whose_arithmetic_is_unknown_is_refused(config: Any, why: str) -> None:
    with pytest.raises(UnsupportedModel, match=why):
        merged(AutoModelForCausalLM.from_config(config), POSITIONS)
