"""Counts what plain Hugging Face models allocate in one training step, storage by storage.

A program: cases in (JSON on stdin: shape, workload, fake), bytes by term out. A process of its own, because
Unsloth rewrites transformers' classes wherever it has been imported. A fake case computes nothing and needs
no memory: that is how a 7B is counted on a laptop. Nothing here knows the estimator's formulas.
"""
# ruff: noqa: TID253  # this process exists to load them

import contextlib
import json
import sys
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import bitsandbytes
import torch
from bitsandbytes.functional import QuantState
from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM
from trl.kernels import chunked_logprob
from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE, add_fused_lm_head, selective_log_softmax

from lowmem_rl.config.run_config import TrainableConfig
from lowmem_rl.engine.whole_weights import train_whole
from lowmem_rl.memory.workload import Workload
from lowmem_rl.models.lookup import ModelShape
from lowmem_rl.trl_adapter.gradient_start import shorten_backward

SCORES = ("log_probs", "entropy")  # what TRL's GRPOTrainer asks its fused head for


class LiveBytes(TorchDispatchMode):
    """Bytes of all storages that are alive, and the most there were since the last `window`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.prim.device.default:  # of fake tensors, more often than all operations together
            return args[0].device
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        if function is torch.ops.aten._softmax_backward_data.default:
            # CUDA's kernel takes the product of its inputs as a tensor (aten/src/ATen/native/cuda/SoftMax.cu)
            self.most = max(self.most, self.now + args[0].nbytes)
        return result

    def window(self) -> int:
        """Returns the peak since the last call and begins a new one."""
        most, self.most = self.most, self.now
        return most

    def _count(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()  # views share a storage
        if address in self.known:
            return
        self.known.add(address)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, address, size)

    def _forget(self, address: int, size: int) -> None:
        self.known.discard(address)
        self.now -= size


class NoKernel:
    """Replaces a Triton kernel of TRL's, which no CPU runs: it writes into the given buffers, which are all counted."""

    def __getitem__(self, grid: Any) -> Any:
        return lambda *args, **kwargs: None


chunked_logprob._forward_kernel = chunked_logprob._backward_kernel = NoKernel()
chunked_logprob._addmm_fp32 = lambda *args: None  # on CUDA cuBLAS adds in place; on a CPU TRL would copy both factors
torch.is_autocast_enabled = lambda *device: torch.is_autocast_cpu_enabled()  # what PEFT's 4-bit layers ask, of CUDA


def count(shape: ModelShape, work: Workload, *, fake: bool) -> dict[str, int]:
    """Returns bytes by term, of one forward, backward and optimizer step."""
    model, trained_model = build(shape, work)
    with FakeTensorMode(allow_non_fake_inputs=True) if fake else contextlib.nullcontext(), LiveBytes() as live:
        trained_model.to_empty(device="cpu")
        model.tie_weights()
        if not fake:
            for tensor in [*trained_model.parameters(), *trained_model.buffers()]:
                tensor.data.fill_(0.01)
        if work.method == "qlora":
            give_4_bit_weights(model)
        found = {"upcast": upcast(trained_model) if work.upcast_remainder else 0}
        trained = [parameter for parameter in trained_model.parameters() if parameter.requires_grad]
        for parameter in trained if work.adapter_bytes else ():
            parameter.data = parameter.data.to(dtype_of(work.adapter_bytes))
        adapter = sum(parameter.nbytes for parameter in trained) if work.method != "full" else 0
        found |= {"weights": live.now - adapter, "adapter": adapter}
        prepare(model, trained_model, work, fake=fake)
        found |= backward(model, trained_model, work, live, fake=fake)
        found["gradients"] = sum(parameter.grad.nbytes for parameter in trained)
        return found | optimizer_step(trained, live)


def build(shape: ModelShape, work: Workload) -> tuple[Any, Any]:
    """Returns the model and what is trained of it, without memory: on the meta device."""
    config = AutoConfig.for_model(
        shape.architecture.removesuffix("ForCausalLM").lower(),
        num_hidden_layers=shape.num_layers,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        vocab_size=shape.vocab_size,
        tie_word_embeddings=shape.tied_embeddings,
        use_cache=False,
    )
    config._attn_implementation = "eager" if work.attention == "eager" else "sdpa"
    with torch.device("meta"), default_dtype(dtype_of(work.weight_bytes or work.compute_bytes)):
        model = AutoModelForCausalLM.from_config(config)
    if work.method == "full":
        return model, model
    layers = [int(number) for number in work_layers(work, shape)]
    if work.whole_params:
        with torch.device("meta"):
            return model, train_whole(model, layers, TrainableConfig(method="full"))
    if work.method == "qlora":
        make_room_for_4_bit(model)
    settings = {"r": work.lora_rank, "layers_to_transform": layers, "use_dora": work.use_dora}
    adapter = LoraConfig(target_modules=list(work.lora_targets), **settings)
    return model, get_peft_model(model, adapter, low_cpu_mem_usage=True)  # the option that leaves it on meta


def make_room_for_4_bit(model: Any) -> None:
    """Puts bitsandbytes' layers in place of the linear layers of all decoder layers; PEFT then wraps them as such."""
    model.is_loaded_in_4bit = True
    for name, linear in list(model.model.layers.named_modules()):
        if isinstance(linear, torch.nn.Linear):
            sizes, bias = (linear.in_features, linear.out_features), linear.bias is not None
            quantised = bitsandbytes.nn.Linear4bit(*sizes, bias=bias, compute_dtype=torch.bfloat16, device="meta")
            model.model.layers.set_submodule(name, quantised)


def give_4_bit_weights(model: Any) -> None:
    """Gives each 4-bit layer packed numbers and their constants, doubly quantised, as after bitsandbytes' own work."""
    for linear in model.modules():
        if not isinstance(linear, bitsandbytes.nn.Linear4bit):
            continue
        count = linear.in_features * linear.out_features
        outer = QuantState(absmax=torch.empty(count // 64 // 256), code=torch.empty(256), blocksize=256)
        outer.dtype = torch.float32
        packed = torch.empty(count // 2, 1, dtype=torch.uint8)
        packed.quant_state = QuantState(
            absmax=torch.empty(count // 64, dtype=torch.uint8),
            shape=torch.Size((linear.out_features, linear.in_features)),
            code=torch.empty(16),
            blocksize=64,
            quant_type="nf4",
            dtype=torch.bfloat16,
            offset=torch.empty(()),
            state2=outer,
        )
        del linear.weight  # a parameter of bitsandbytes' own class, which cannot hold a fake tensor
        object.__setattr__(linear, "weight", packed)
        linear.quant_state = packed.quant_state


def upcast(trained_model: Any) -> int:
    """Does what PEFT's `prepare_model_for_kbit_training` does; returns the bytes of the blocks that it gives back."""
    freed = 0
    for parameter in trained_model.parameters():
        if parameter.dtype == torch.bfloat16:
            freed += parameter.nbytes
            parameter.data = parameter.data.to(torch.float32)
    return freed


def work_layers(work: Workload, shape: ModelShape) -> range:
    """The layers that learn: those at the bottom if the backward pass goes deeper than they are many, else the top."""
    count = shape.num_layers if work.trained_layers is None else work.trained_layers
    is_first = (work.backward_layers or count) > count
    return range(count) if is_first else range(shape.num_layers - count, shape.num_layers)


def prepare(model: Any, trained_model: Any, work: Workload, *, fake: bool) -> None:
    """Does what TRL's GRPOTrainer does to a model before it trains."""
    if work.loss == "grpo" and work.logits == "chunked" and not fake:
        add_fused_lm_head(model, outputs=SCORES)
    if work.checkpointing == "plain":
        trained_model.gradient_checkpointing_enable()
        if work.method != "full" and not work.whole_params:
            trained_model.enable_input_require_grads()
    if work.backward_layers and work.backward_layers < model.config.num_hidden_layers:
        shorten_backward(model)
    trained_model.train()


def backward(model: Any, trained_model: Any, work: Workload, live: LiveBytes, *, fake: bool) -> dict[str, int]:
    """Returns what the layers keep for their backward pass, what the loss takes on top, and the peaks.

    The final norm parts layers and loss: its input on the way forward, that input's gradient on the way back.
    """
    found: dict[str, int] = {}
    resident = live.now

    def layers_are_over(module: Any, inputs: Any) -> None:
        found["layers"] = live.window() - resident
        inputs[0].register_hook(loss_is_over)

    def loss_is_over(gradient: Any) -> None:
        of_the_head = sum(p.grad.nbytes for p in trained_model.parameters() if p.grad is not None)
        found["kept"] = live.now - resident - gradient.nbytes - of_the_head
        found["loss"] = live.window() - resident - found["kept"]

    model.model.norm.register_forward_pre_hook(layers_are_over)
    live.window()
    with torch.autocast("cpu", torch.bfloat16) if work.compute_bytes == 2 else contextlib.nullcontext():
        loss, held = loss_of(model, trained_model, work, fake=fake)
    scored = live.window() - resident
    loss.backward()
    del held
    found["layers"] = max(found["layers"], live.window() - resident)
    found["peak"] = resident + max(scored, found["kept"] + found["loss"], found["layers"])
    return found


def loss_of(model: Any, trained_model: Any, work: Workload, *, fake: bool) -> tuple[Any, Any]:
    """Returns the loss, and what the program holds through the backward pass."""
    rows, new = work.micro_batch, work.completion_tokens
    ids = torch.ones(rows, work.row_tokens, dtype=torch.long)
    inputs = {"input_ids": ids} if work.attention == "flash" else {"input_ids": ids, "attention_mask": padded(ids)}
    if work.loss == "sft":
        output = trained_model(**inputs, labels=ids)
        return output.loss, output if work.logits == "held" else None
    if work.logits == "selective":
        log_probs = selected_log_probs(trained_model, inputs, new)
    elif fake:
        log_probs = fake_log_probs(model, inputs, new)
    else:
        labels = ids.clone()
        labels[:, :-new] = -100
        log_probs = trained_model(**inputs, labels=labels, fused_lm_head=True).log_probs[:, -new:]
    ratio = torch.exp(log_probs - log_probs.detach())
    return -torch.clamp(ratio, 0.8, 1.2).mean(), None


def selected_log_probs(trained_model: Any, inputs: dict[str, Any], new: int) -> Any:
    """TRL's log-probs from 1.0 to 1.9: accelerate makes whole logits float32 on their way out of the model."""
    logits = trained_model(**inputs, logits_to_keep=new + 1).logits.float()[:, :-1]
    logits.div_(1.0)
    return selective_log_softmax(logits, inputs["input_ids"][:, -new:])


def fake_log_probs(model: Any, inputs: dict[str, Any], new: int) -> Any:
    """TRL's head, but for its choice of rows by a mask's values, which fake tensors lack: it copies the same rows."""
    hidden = model.model(**inputs).last_hidden_state[:, -new - 1 : -1]
    weight, targets = model.get_output_embeddings().weight, inputs["input_ids"][:, -new:]
    log_probs, *_ = chunked_logprob.ChunkedLogProbFunction.apply(
        hidden.reshape(-1, hidden.shape[-1]),
        weight,
        None,
        targets.reshape(-1),
        1.0,
        _CHUNKED_LOGPROB_CHUNK_SIZE,
        None,
        1.0,
        SCORES,
    )
    return log_probs.view(targets.shape)


def padded(ids: Any) -> Any:
    """A mask with a padded row: transformers drops one that masks nothing."""
    mask = torch.ones_like(ids)
    mask[0, 0] = 0
    return mask


def optimizer_step(trained: list[Any], live: LiveBytes) -> dict[str, int]:
    """Returns the states that the first step leaves and what else it held, as on a GPU: all tensors at once."""
    live.window()
    before = live.now
    optimizer = torch.optim.AdamW(trained, foreach=True)
    optimizer.step()
    return {"optimizer states": live.now - before, "optimizer scratch": live.window() - live.now}


def dtype_of(num_bytes: int) -> torch.dtype:
    return {2: torch.bfloat16, 4: torch.float32}[num_bytes]


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # layers this short would wait for their threads
    for line in sys.stdin:
        case = json.loads(line)
        work = Workload(**case["workload"] | {"lora_targets": tuple(case["workload"]["lora_targets"])})
        found = count(ModelShape(**case["shape"]), work, fake=case["fake"])
        sys.stdout.write("COUNTED" + json.dumps({"name": case["name"]} | found) + "\n")


if __name__ == "__main__":
    main()
