"""Lets the backward pass end at the lowest decoder layer that learns, under any kind of checkpointing; forward passes
start there, too, with what was kept of it (`kept_states`).

With reentrant checkpointing (Unsloth's, on a GPU) a layer is differentiated only if its input needs a gradient. PEFT,
TRL and Unsloth therefore make the embeddings' output need one: then the backward pass goes through all layers and keeps
the input of each, also of those below the first that learns. Without these hooks nothing would learn
(huggingface/transformers#21381). Here the input of the first layer that learns needs the gradient instead. Counted with
LoRA in the last 2 of 8 layers: 16 layer forwards and 4.5 MiB kept become 10 and 1.5 MiB, the gradient is the same.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_HOOKS = ("make_inputs_require_grad", "make_inputs_require_grads", "requires_grad_post_hook")
"""Names of the hooks of PEFT, transformers and Unsloth that make the embeddings' output need a gradient."""


def shorten_backward(base: Any, *, changes: bool = False) -> "LayerStart":
    """Ends the backward pass of a decoder (`base.model.layers`) at its lowest layer that learns; no checkpoints below.

    If the embeddings or layer 0 learn there is nothing to shorten, unless the set `changes` during the run: then each
    forward looks again. It acts in the layers' `__call__`: a forward pre-hook would run inside the checkpointed
    function, which is too late.
    """
    start = LayerStart(base)
    if not changes and _first_that_learns(base) <= 0:
        return start
    _remove_hooks(base)
    for number, layer in enumerate(base.model.layers):
        layer.__class__ = start.subclass(type(layer), number)
    return start


def _first_that_learns(base: Any) -> int:
    """Returns the lowest layer that learns; -1 if the embeddings do, the number of layers if none does."""
    if _learns(base.model.embed_tokens):
        return -1
    learning = (number for number, layer in enumerate(base.model.layers) if _learns(layer))
    return next(learning, len(base.model.layers))


def _learns(module: nn.Module) -> bool:
    return any(weight.requires_grad for weight in module.parameters())


def _remove_hooks(base: Any) -> None:
    for module in base.modules():
        for key, hook in list(module._forward_hooks.items()):
            if getattr(hook, "__name__", "") in _HOOKS:
                del module._forward_hooks[key]


FindStates = Callable[[Tensor, Tensor | None], Tensor | None]
"""Returns what enters a layer, (rows, tokens, H), for a forward's ids and positions, (rows, tokens); None: unknown."""


_UNSLOTHS = "causal_mask"
"""An argument of Unsloth's layers on a GPU alone, which return a tuple (unsloth/models/llama.py)."""


class LayerStart:
    """Where the backward pass of the present forward ends; recomputed layers keep that of their forward."""

    states: Tensor | None = None
    """What enters `layer` in the next forward (rows, tokens, H); None: the layers below it compute that."""
    layer = 0
    find: FindStates | None = None
    ids_read: Tensor | None = None
    """What the embeddings have read last."""

    def __init__(self, base: Any) -> None:
        self.base, self.first = base, 0
        self.began_there: list[bool] = []

    @contextmanager
    def reading(self, states: Tensor | None) -> Iterator[None]:
        """Starts forward passes inside at `layer`, which these states enter."""
        before, self.states = self.states, states
        try:
            yield
        finally:
            self.states = before

    @contextmanager
    def finding(self, find: FindStates) -> Iterator[list[bool]]:
        """Starts each forward pass inside at `layer` if what enters it is found for all of its tokens; yields a list
        of which did."""
        self.began_there = []

        def read(module: Any, args: tuple[Any, ...]) -> None:
            self.ids_read = args[0]

        handle, self.find = self.base.model.embed_tokens.register_forward_pre_hook(read), find
        try:
            yield self.began_there
        finally:
            handle.remove()
            self.find = self.ids_read = self.states = None

    @property
    def is_finding(self) -> bool:
        """True inside of `finding`."""
        return self.find is not None

    def _found(self, hidden_states: Tensor, positions: Tensor | None, *, uses_cache: bool) -> Tensor | None:
        ids, self.ids_read, self.states = self.ids_read, None, None  # those of the forward before are freed first
        found = None
        if self.find is not None and ids is not None and ids.shape == hidden_states.shape[:2] and not uses_cache:
            found = self.find(ids, positions)
        self.began_there.append(found is not None)
        return found

    def subclass(self, kind: Any, number: int) -> type:
        """Returns the class of layer `number`, under the name of its own."""

        def call(layer: Any, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
            if number == 0:
                self.first = _first_that_learns(self.base)
                if self.is_finding:
                    uses_cache = bool(kwargs.get("use_cache"))
                    self.states = self._found(hidden_states, kwargs.get("position_ids"), uses_cache=uses_cache)
            if self.states is not None and number < self.layer:
                found = _skipped(number, hidden_states, kwargs.get("past_key_values"))
                return (found,) if _UNSLOTHS in kwargs else found
            if self.states is not None and number == self.layer:
                hidden_states = self.states.to(hidden_states)
            if number < self.first:
                # Unsloth's forward lets the embeddings' output need a gradient by itself: activations would be kept.
                with torch.no_grad():
                    return nn.Module.__call__(layer, hidden_states, *args, **kwargs)  # not that of a checkpointed layer
            if number == self.first and torch.is_grad_enabled():
                hidden_states = hidden_states.detach().requires_grad_()
            return kind.__call__(layer, hidden_states, *args, **kwargs)

        return type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})


def _skipped(number: int, hidden_states: Tensor, cache: Any) -> Tensor:
    """Returns what entered a layer that is not computed.

    transformers counts the tokens of a cache in its first layer, by the length of non-empty keys: one number a token.
    """
    if number == 0 and cache is not None:
        one = hidden_states[:, None, :, :1]
        cache.update(one, one, number)
    return hidden_states
