"""Lets the backward pass end at the lowest decoder layer that learns, under any kind of checkpointing.

With reentrant checkpointing (Unsloth's, on a GPU) a layer is differentiated only if its input needs a gradient. PEFT,
TRL and Unsloth therefore make the embeddings' output need one: then the backward pass goes through all layers and keeps
the input of each, also of those below the first that learns. Without these hooks nothing would learn
(huggingface/transformers#21381). Here the input of the first layer that learns needs the gradient instead. Counted with
LoRA in the last 2 of 8 layers: 16 layer forwards and 4.5 MiB kept become 10 and 1.5 MiB, the gradient is the same.
"""

from typing import Any

import torch
from torch import nn

_HOOKS = ("make_inputs_require_grad", "make_inputs_require_grads", "requires_grad_post_hook")
"""Names of the hooks of PEFT, transformers and Unsloth that make the embeddings' output need a gradient."""


def shorten_backward(base: Any) -> None:
    """Ends the backward pass of a decoder (`base.model.layers`) at its lowest layer that learns; no checkpoints below.

    If the embeddings or layer 0 learn there is nothing to shorten. It acts in the layers' `__call__`: a forward
    pre-hook would run inside the checkpointed function, which is too late.
    """
    learning = [number for number, layer in enumerate(base.model.layers) if _learns(layer)]
    first = 0 if _learns(base.model.embed_tokens) else min(learning, default=len(base.model.layers))
    if first == 0:
        return
    _remove_hooks(base)
    for number, layer in enumerate(base.model.layers[: first + 1]):
        layer.__class__ = _subclass(type(layer), _frozen_call if number < first else _first_call(type(layer)))


def _learns(module: nn.Module) -> bool:
    return any(weight.requires_grad for weight in module.parameters())


def _remove_hooks(base: Any) -> None:
    for module in base.modules():
        for key, hook in list(module._forward_hooks.items()):
            if getattr(hook, "__name__", "") in _HOOKS:
                del module._forward_hooks[key]


def _subclass(kind: type, call: Any) -> type:
    return type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})


def _frozen_call(self: Any, *args: Any, **kwargs: Any) -> Any:
    # Unsloth's forward lets the embeddings' output need a gradient by itself: these layers would keep activations.
    with torch.no_grad():
        return nn.Module.__call__(self, *args, **kwargs)  # not that of a checkpointed layer


def _first_call(kind: Any) -> Any:
    def call(self: Any, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled():
            hidden_states = hidden_states.detach().requires_grad_()
        return kind.__call__(self, hidden_states, *args, **kwargs)

    return call
