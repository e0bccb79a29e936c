"""What TRL's log-probs over whole logits take at most, counted by PyTorch's own profiler on the CPU.

Not under a dispatch mode, as the oracle counts: autograd then scatters out of place and takes four bytes a logit more.
"""

import pytest

from lowmem_rl.memory.activations import LOGIT_BYTES
from lowmem_rl.memory.workload import Logits

ROWS, NEW, HIDDEN, VOCAB = 8, 64, 16, 4000


@pytest.mark.parametrize("kind", ["divided", "selective"])
def test_trl_s_whole_logits_take_what_is_counted(kind: Logits) -> None:
    import torch
    from torch.profiler import ProfilerActivity, profile
    from trl.trainer.utils import selective_log_softmax

    hidden, head = torch.randn(ROWS, NEW + 1, HIDDEN, requires_grad=True), torch.randn(HIDDEN, VOCAB)
    targets = torch.zeros(ROWS, NEW, dtype=torch.long)

    def loss() -> torch.Tensor:
        logits = (hidden @ head)[:, :-1]
        if kind == "selective":  # trl 1.0 to 1.9
            logits.div_(0.9)
        else:  # before, and 1.10 to 1.12
            logits = logits / 0.9
        return selective_log_softmax(logits, targets).mean()

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        loss().backward()
    events = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    assert most / (ROWS * NEW * VOCAB) == pytest.approx(LOGIT_BYTES[kind], rel=0.02)
