"""Hidden states that enter the lowest layer that learns, kept while sampling: the update starts with them.

The layers below it are frozen. What they make of a rollout's tokens is the same in sampling, for the policy that
sampled, for the KL reference, and in every step that shares the rollout: with the states only the layers from there on
are computed. They are kept in host RAM, pinned, or on the card: a token of a 7B model is 7 kB, 0.3 us over a bus of
25 GB/s, where the 23 layers below the last five are 60 us of multiplications at 180 TFLOP/s.

Shapes: R rows, D distinct prompts, P tokens of the longest prompt, C most tokens of a completion, H hidden size.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from lowmem_rl.engine.decoder import Decoder, Map
from lowmem_rl.engine.upload import upload

_MARGIN = 8.0
"""Times the spread of a sum of rounding errors, for the worst of some hundred tokens."""


@dataclass(frozen=True, slots=True)
class KeptStates:
    """What enters `layer` at each token of a rollout, laid out as TRL lays out its ids. Zeros for padding."""

    layer: int
    prompts: Tensor
    """(D, P, H), padded on the left."""
    prompt_of: Tensor
    """(R,) int64: the distinct prompt of each row."""
    completions: Tensor
    """(R, C, H), padded on the right. Also zero: a row's last token, which nothing after it reads."""

    def of_rows(self, rows: Tensor, prompt: int, completion: int) -> Tensor:
        """Returns the states of the rows numbered `rows` (n,) in a batch of these widths: (n, prompt + completion, H).

        Without an autograd history; prompts wider than the longest kept one begin with zeros.
        """
        shown = min(prompt, self.prompts.shape[1])
        prompts = self.prompts[:, self.prompts.shape[1] - shown :][self.prompt_of[rows]]
        completions = self.completions[:, :completion][rows]
        return torch.cat((pad(prompts, (0, 0, prompt - shown, 0)), completions), dim=1)

    def copy_row(self, row: int, prompt: int, start: int, target: Tensor) -> None:
        """Copies the states of a row, whose prompt has `prompt` tokens, from its token `start` on into `target` (T, H).

        From pinned memory, the copy is queued.
        """
        end = start + len(target)
        parts = (self.prompts[self.prompt_of[row], -prompt:][start:end], self.completions[row])
        known = len(parts[0])
        target[:known].copy_(parts[0], non_blocking=True)
        first = start + known - prompt
        target[known:].copy_(parts[1][first : first + len(target) - known], non_blocking=True)

    def parked(self, device: torch.device, *, on_card: bool) -> "KeptStates":
        """Returns these states on the card, or in host RAM, pinned if the device is a card."""
        place = device if on_card else torch.device("cpu")
        moved = [states.to(place) for states in (self.prompts, self.completions)]
        if device.type == "cuda" and not on_card:
            moved = [states.pin_memory() for states in moved]
        return replace(self, prompts=moved[0], completions=moved[1])

    def joined(self, more: "KeptStates") -> "KeptStates":
        """Returns the states of these rows and of `more` after them, of the same layer."""
        width = max(self.prompts.shape[1], more.prompts.shape[1])
        prompts = [pad(one.prompts, (0, 0, width - one.prompts.shape[1], 0)) for one in (self, more)]
        return replace(
            self,
            prompts=torch.cat(prompts),
            prompt_of=torch.cat((self.prompt_of, more.prompt_of + len(self.prompts))),
            completions=torch.cat((self.completions, more.completions)),
        )

    def error(self, row: int, states: Tensor, prompt: int, completion: int) -> float:
        """Returns the largest relative difference of a token from `states` (tokens, H), all but the last compared.

        |x - x'| / |x'| with Euclidean norms; the row has `prompt` and `completion` tokens.
        """
        ours = self.of_rows(torch.tensor([row]), prompt, completion)[0, :-1].double()
        theirs = states[: prompt + completion - 1].to(ours)
        return float(((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)).max())

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps: a resumed step starts with the same bits."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "KeptStates":
        """Returns the states that `state_dict` was made of."""
        return cls(**state)


def max_error(layer: int, hidden: int, dtype: torch.dtype) -> float:
    """Returns the largest relative difference of a token's states that rounding explains after `layer` layers.

    Each layer adds twice to the residual. A sum is rounded to the stored type, by up to eps / 2, and a product of
    `hidden` terms in float32 by sqrt(hidden) 2^-24: independent errors, so they add up by their squares.
    """
    each = float(torch.finfo(dtype).eps) / 2 + float(hidden**0.5) * 2.0**-24
    return _MARGIN * (2 * layer) ** 0.5 * each


class StateRecorder:
    """Collects the states of one rollout while our engine samples it; `kept` when that is over.

    The sampler sets `error` to the largest relative difference from the training weights' states of the rows that it
    has checked, and drops what rounding does not explain.
    """

    def __init__(self, layer: int, *, on_card: bool = False) -> None:
        """With `on_card` the states stay where they are computed; else they go to host RAM."""
        self.layer, self.on_card = layer, on_card
        self.kept: KeptStates | None = None
        self.error: float | None = None
        self._seen: Tensor
        self._waiting: list[Tensor] = []
        self._prompts: dict[Any, Tensor] = {}
        self._completions: Tensor | None = None

    def watched(self, decoder: Decoder, rows: int, width: int) -> Decoder:
        """Returns the decoder that shows what enters the layer; a rollout of `rows` of up to `width` tokens begins."""
        self._waiting, self._prompts, self._completions, self._shape = [], {}, None, (rows, width)
        block = decoder.blocks[self.layer]
        shown = replace(block, attention_norm=self._shown(block.attention_norm))
        blocks = (*decoder.blocks[: self.layer], shown, *decoder.blocks[self.layer + 1 :])
        return replace(decoder, blocks=blocks)

    def _shown(self, norm: Map) -> Map:
        def show(x: Tensor) -> Tensor:
            self._seen = x  # a block's residual is what its first norm reads
            return norm(x)

        return show

    def read_prompts(self, keys: Sequence[Any], lengths: Sequence[int]) -> None:
        """Keeps the states of the prompts that were read last, (n, T, H), under their keys."""
        for key, length, states in zip(keys, lengths, self._in_place(self._seen), strict=True):
            self._prompts[key] = states[:length].clone()

    def read_token(self) -> None:
        """Keeps the states of the tokens that were read last, one of each running row."""
        self._waiting.append(self._seen)

    def store_tokens(self, rows: Sequence[int], counts: Sequence[int]) -> None:
        """Stores what was read since the last call: the latest tokens but one of `rows`, which have `counts` now."""
        if not self._waiting:
            return
        is_gpu = self._seen.is_cuda
        states = self._in_place(torch.stack(self._waiting, dim=1))  # (S, n, H): one copy, for which the host waits
        self._waiting = []
        if self._completions is None:
            pinned = is_gpu and not self.on_card
            self._completions = states.new_zeros(*self._shape, states.shape[-1], pin_memory=pinned)
        ends = torch.tensor(counts)[:, None] - 1 + torch.arange(-states.shape[1], 0)
        place = [upload(index, states.device) for index in (torch.tensor(rows)[:, None].expand_as(ends), ends)]
        self._completions[place[0], place[1]] = states

    def _in_place(self, states: Tensor) -> Tensor:
        return states if self.on_card else states.cpu()

    def finish(self, keys: Sequence[Any], completion: int) -> None:
        """Ends a rollout whose rows have these prompts, and completions of at most `completion` tokens."""
        order = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        longest = max(map(len, self._prompts.values()))
        prompts = [pad(self._prompts[key], (0, 0, longest - len(self._prompts[key]), 0)) for key in order]
        found, (rows, width) = torch.stack(prompts), self._shape
        if self._seen.is_cuda and not self.on_card:
            found = found.pin_memory()
        completions = self._completions
        if completions is None:  # each row ended with its first token
            completions = found.new_zeros(rows, width, found.shape[-1])
        prompt_of = torch.tensor([order[key] for key in keys])
        self.kept = KeptStates(self.layer, found, prompt_of, completions[:, :completion])
        self._prompts, self._completions, self._seen = {}, None, found.new_empty(0)


@contextmanager
def entering(model: Any, layer: int) -> Iterator[list[Tensor]]:
    """Yields a list that gets what enters a decoder layer in each forward inside, (rows, tokens, H)."""
    seen: list[Tensor] = []

    def show(module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        seen.append(args[0] if args else kwargs["hidden_states"])

    handle = model.get_base_model().model.layers[layer].register_forward_pre_hook(show, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()
