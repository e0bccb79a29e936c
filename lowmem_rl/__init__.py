"""lowmem-rl: reinforcement learning of language models on one GPU.

The public names are imported when they are first used, so that importing the package
costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lowmem_rl._version import __version__ as __version__

__all__ = [
    "Example",
    "LowMemError",
    "Reward",
    "RunConfig",
    "RunDir",
    "Selection",
    "conversation",
    "resolve",
    "run",
]

if TYPE_CHECKING:
    from lowmem_rl.config.compose import resolve
    from lowmem_rl.config.run_config import RunConfig
    from lowmem_rl.entrypoints.train import run
    from lowmem_rl.errors import LowMemError
    from lowmem_rl.example import Example
    from lowmem_rl.prompts import conversation
    from lowmem_rl.rewards.reward import Reward
    from lowmem_rl.storage.run_dir import RunDir
    from lowmem_rl.tasks.task import Selection

_HOMES = {
    "Example": "lowmem_rl.example",
    "LowMemError": "lowmem_rl.errors",
    "Reward": "lowmem_rl.rewards.reward",
    "RunConfig": "lowmem_rl.config.run_config",
    "RunDir": "lowmem_rl.storage.run_dir",
    "Selection": "lowmem_rl.tasks.task",
    "conversation": "lowmem_rl.prompts",
    "resolve": "lowmem_rl.config.compose",
    "run": "lowmem_rl.entrypoints.train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
