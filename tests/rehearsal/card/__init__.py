"""A CUDA card simulated in host memory: runs the GPU path of torch programs on a machine without a GPU.

`install.install(KEY)` is called before anything imports unsloth, trl, transformers, peft or bitsandbytes. From then on
`torch.cuda` shows one card, and tensors "on" it are real `torch.Tensor`s of device `cuda:0` whose storage is host
memory. A `TorchDispatchMode` that is never left computes every operation with the CPU's kernels on aliases of that
memory. A test tool for Linux on x86-64; the library never imports it.

  real     device, dtype, strides, views, in-place writes, autograd, inference tensors, autocast("cuda"), GradScaler,
           custom autograd functions, torch.func, bitsandbytes' 4-bit and 8-bit numbers (its CPU kernels)
  checked  mixing host and card tensors raises what CUDA raises, generators included; dtypes of products, `layer_norm`,
           attention and masks as CUDA's kernels ask; indices in range
  counted  waits for the card by source line, bytes copied to the host, allocated bytes, attention and Triton kernels
  played   out of memory: by the card's size, or at the n-th allocation
  faked    streams and events (nothing is asynchronous), random numbers (the card has a generator of its own), speed,
           the rounding of kernels, torch.compile (off), the caching allocator's blocks (reserved = allocated)
  unseen   scratch memory of `sort` and `topk`, squares of scores of the math attention, dtypes of other operations that
           CUDA refuses and the CPU takes, indices without data; a `torch.Generator` of the card cannot be made

| file | what it replaces |
| --- | --- |
| `state.py` | nothing: which card it is, and what is counted |
| `memory.py` | the allocator |
| `dispatch.py` | the CUDA kernels of torch |
| `phantom.py` | the same for tensors too large to exist here: shapes, dtypes and bytes only |
| `checks.py` | what those kernels refuse and the CPU's take |
| `shape_plans.py`, `nested.py` | nothing: shapes of results that are known, tensors in lists |
| `scratch.py` | memory that composite kernels hold while they run |
| `in_place.py` | operations that give a tensor another storage |
| `waits.py` | nothing: which operations make the host wait |
| `attention.py` | scaled dot product and flash attention |
| `cuda_api.py`, `streams.py`, `random_numbers.py` | `torch.cuda` and `torch.accelerator` |
| `storages.py` | copies of whole storages |
| `kernels.py`, `row_kernels.py` | Triton's launcher: its interpreter, or the formulas of Unsloth's row kernels |
| `libraries.py` | bitsandbytes' paged memory, Unsloth's kernels called by address, NVML, torch.compile |
| `autograd_engine.py` | what the autograd engine asks the driver |
| `install.py` | puts all of it in place |
"""
