"""The trained model's side of the proof: loaded as in training, and freed before anything else is loaded."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from lowmem_rl.chat_templates.prompt_template import PromptTemplate
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.hf_generate import completion_of
from lowmem_rl.engine.oom import free_memory
from lowmem_rl.engine.policy import Policy, prepare_process
from lowmem_rl.engine.row_length import asking
from lowmem_rl.engine.trained_model import TrainedAdapter, load_trained
from lowmem_rl.evaluation.prompt_limit import examples_with_room
from lowmem_rl.example import Example
from lowmem_rl.export.model_answers import ExportPrompts, answer_greedily, read_again
from lowmem_rl.export.plain_worker import BaseModelSpec
from lowmem_rl.export.proof import ModelAnswers
from lowmem_rl.models.lookup import model_path
from lowmem_rl.telemetry.events import Listener, Note, PhaseStarted


@dataclass(frozen=True, slots=True)
class ReferenceAnswers:
    """The trained model's answers to held-out items, and the base that a receiver puts the adapter on."""

    examples: tuple[Example, ...]
    asked: ExportPrompts
    own: ModelAnswers
    texts: tuple[str, ...]
    template: PromptTemplate
    base: BaseModelSpec


def answer_with_trained(
    adapter: TrainedAdapter,
    config: RunConfig,
    device: Device,
    examples: Sequence[Example],
    listen: Listener,
    rounded_to: str | None = None,
) -> ReferenceAnswers:
    """Asks the model as it is in training, and frees it. Raises `TaskError` if it has room for none of the prompts.

    `rounded_to` is a 16-bit type to which what learned is rounded before.
    """
    prepare_process(config, device)
    prompts, tokens = [example.prompt for example in examples], config.grpo.max_completion_tokens
    policy = load_trained(adapter, config, device, [asking("the export's proof", prompts, tokens)])
    if rounded_to:
        _round_learned(policy, rounded_to)
    examples = examples_with_room(policy, examples, tokens, lambda text: listen(Note(text)))
    asked = ExportPrompts(
        prompts=[policy.tokenize(example.prompt) for example in examples],
        stop_ids=sorted(policy.stop_ids),
        pad_id=policy.tokenizer.pad_token_id,
        max_tokens=tokens,
        batch=config.eval.batch,
    )
    listen(PhaseStarted(f"asking the trained model {len(examples)} held-out items"))
    with policy.inference() as model:
        answers = list(answer_greedily(model, asked))
        read = [read_again(model, *pair) for pair in zip(asked.prompts, answers, strict=True)]
    texts = tuple(completion_of(policy, answer.ids).text for answer in answers)
    own, template, base = ModelAnswers(asked.prompts, answers, read), policy.template, _base_of(policy, config)
    del policy, model
    free_memory()
    return ReferenceAnswers(tuple(examples), asked, own, texts, template, base)


def _round_learned(policy: Policy, dtype: str) -> None:
    import torch

    with torch.no_grad():
        for weight in policy.model.parameters():
            if weight.requires_grad:
                weight.copy_(weight.to(getattr(torch, dtype)))


def _base_of(policy: Policy, config: RunConfig) -> BaseModelSpec:
    """Returns the adapter's base: on a GPU Unsloth may have taken its own upload of the named model."""
    from transformers import BitsAndBytesConfig

    loaded = policy.model.get_base_model().config
    quantization = getattr(loaded, "quantization_config", None)
    if isinstance(quantization, dict):  # Unsloth's GPU loader leaves it as JSON
        quantization = BitsAndBytesConfig.from_dict(quantization)
    settings = None if quantization is None else json.loads(quantization.to_json_string(use_diff=False))
    swapped = config.model.checkpoint == "dynamic" and config.model.bits == 4
    name = loaded.name_or_path if swapped else model_path(config.model.name)
    return BaseModelSpec(name, None if swapped else config.model.revision, settings, policy.device.dtype)
