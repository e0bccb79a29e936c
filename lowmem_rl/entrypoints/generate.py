"""Answers one prompt with a run's model, without the adapter and with it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lowmem_rl.config.compose import ConfigLayer
from lowmem_rl.engine.device import device_on, dtype_fault
from lowmem_rl.engine.hf_generate import Completion
from lowmem_rl.engine.policy import prepare_process
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.engine.sampling import GREEDY, SamplingParams, stream_names
from lowmem_rl.engine.trained_model import check_adapter, config_of, find_trained_adapter, load_trained
from lowmem_rl.entrypoints.preflight import check_weights
from lowmem_rl.errors import ConfigError
from lowmem_rl.example import Message
from lowmem_rl.models.hardware import this_machine
from lowmem_rl.prompts import conversation
from lowmem_rl.telemetry.events import Listener, Note, PhaseStarted
from lowmem_rl.telemetry.output_capture import capture_library_output


@dataclass(frozen=True, slots=True)
class PromptAnswers:
    """Completions of one prompt by a run's base model and its trained model: one greedy one, or sampled ones."""

    prompt: str
    greedy: bool
    base: tuple[Completion, ...]
    trained: tuple[Completion, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data."""
        return asdict(self)


def ask(
    run_path: Path,
    prompt: str,
    *,
    samples: int | None = None,
    places: Sequence[ConfigLayer] = (),
    listen: Listener = lambda event: None,
) -> PromptAnswers:
    """Prompts a run's model as its training did, greedily or `samples` times with its sampling settings.

    `run_path` is a run's directory, or `best` in it; `places` name files of it again that have moved. Raises
    `RunDirError` if the run has no adapter, `ConfigError` if the prompt is empty or too long.
    """
    trained = find_trained_adapter(run_path)
    config = config_of(trained.run, places)
    check_adapter(trained, config)
    if not prompt.strip() or prompt.encode(errors="ignore").decode() != prompt:
        raise ConfigError("The prompt is empty or not UTF-8.", hint='Write the question: --prompt "What is 3 * 4?"')
    messages = conversation(prompt, config.task.prompt)
    check_weights(config)
    with capture_library_output(trained.run.log):
        listen(PhaseStarted(f"loading {config.model.name} with what it has learned"))
        device = device_on(this_machine(), config)
        if fault := dtype_fault(config, device):
            listen(Note(fault))
        prepare_process(config, device)
        policy = load_trained(trained, config, device)
        tokens, limit = len(policy.tokenize(messages)), config.grpo.max_prompt_tokens
        if tokens > limit:
            raise ConfigError(
                f"The prompt has {tokens} tokens; this run's model was loaded for {limit} (grpo.max_prompt_tokens).",
                hint="Write a shorter prompt.",
            )
        sampler = Sampler(policy, config)
        with policy.model.disable_adapter():
            base = _answers(sampler, messages, samples)
        return PromptAnswers(prompt, samples is None, base, _answers(sampler, messages, samples))


def _answers(sampler: Sampler, messages: tuple[Message, ...], samples: int | None) -> tuple[Completion, ...]:
    config, rows = sampler.config, samples or 1
    params = GREEDY if samples is None else SamplingParams.of(config.rollout)
    answered = sampler.answers(
        [messages] * rows,
        params,
        max_tokens=config.grpo.max_completion_tokens,
        batch=min(rows, config.eval.batch),
        streams=stream_names(f"prompt {config.seed}", rows),
    )
    return tuple(completion for _, completion in sorted(answered, key=lambda found: found[0]))
