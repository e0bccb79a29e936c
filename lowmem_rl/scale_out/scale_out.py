"""`scale-out`: checks the run for the target and writes its folder, whole or not at all."""

from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowmem_rl._version import __version__
from lowmem_rl.config.compose import ResolvedConfig
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.config.user_code import is_user_code
from lowmem_rl.models.lookup import TINY
from lowmem_rl.models.shape import ModelShape
from lowmem_rl.reports.escape import shown
from lowmem_rl.scale_out.cluster import Cluster
from lowmem_rl.scale_out.counterparts import KeyMap
from lowmem_rl.scale_out.folder import write_files, write_json
from lowmem_rl.scale_out.mapping_page import code, mapping_page
from lowmem_rl.scale_out.place import free_folder, whole_folder
from lowmem_rl.scale_out.prepare import TITLES, PreparedScaleOut, prepare
from lowmem_rl.units import GIB

FACTS, MAPPING = "scale_out.json", "MAPPING.md"


@dataclass(frozen=True, slots=True)
class ScaleOut:
    """The folder that was written."""

    path: Path
    keys: KeyMap
    cluster: Cluster
    num_train: int
    num_test: int
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns what `--json` prints."""
        return {
            "path": str(self.path),
            "to": self.cluster.to,
            "gpus": self.cluster.gpus,
            "nodes": self.cluster.nodes,
            "train_examples": self.num_train,
            "test_examples": self.num_test,
            "notes": list(self.notes),
            "mapping": [row.to_json() for row in self.keys.rows],
        }


def scale_out(
    composed: ResolvedConfig,
    cluster: Cluster,
    out: Path,
    *,
    source: str,
    accepted: Set[str] = frozenset(),
    card: str | None = None,
    adapter: Path | None = None,
) -> ScaleOut:
    """Writes the run for the target into `out`, which must be new or empty.

    `accepted` are keys whose missing counterpart the user accepts, `card` the kind of card there (the preset's if
    None), `adapter` the one to continue with, `source` what the run is called. Raises `ConfigError`, `TaskError`,
    `SetupError` or `RunDirError` before anything is written.
    """
    path = free_folder(out, cluster.to)
    ready = prepare(composed, cluster, accepted, card, adapter, source)
    notes = tuple(_notes(ready))
    result = ScaleOut(path, ready.keys, cluster, len(ready.train), len(ready.test), notes)
    with whole_folder(path) as folder:
        write_files(folder, ready)
        write_json(
            folder / FACTS, result.to_json() | {"source": shown(source), "config": ready.config.model_dump(mode="json")}
        )
        title = f"{code(source)} with {TITLES[cluster.to]} on {cluster}"
        (folder / MAPPING).write_text(mapping_page(title, notes, ready.keys.rows), "utf-8")
    return result


def _notes(ready: PreparedScaleOut) -> Iterator[str]:
    """Yields what a user should know before the run is started, in Markdown."""
    config, is_trl = ready.config, ready.cluster.to == "trl"
    yield f"`bash run.sh` starts it. {_needs(config, ready.cluster)}"
    if is_trl and ready.device.is_gpu:
        yield _MORE_MEMORY
    if not is_trl and config.model.bits == 4:
        yield _sixteen_bit(ready.shape, ready.cluster)
    if ready.adapter:
        yield from _start(ready.adapter, config, is_trl=is_trl)
    if accepted := [f"`{row.key}`" for row in ready.keys.rows if row.is_accepted]:
        yield f"Without counterpart, and accepted: {', '.join(accepted)}."
    yield from (f"Note: {note}." for note in ready.notes)
    if places := list(_places(config)):
        yield f"The machines need this under the same path: {', '.join(map(code, places))}."


def _start(adapter: Path, config: RunConfig, *, is_trl: bool) -> Iterator[str]:
    """Yields what it means to continue with an adapter."""
    reference = "the adapter with which the run starts" if is_trl else "the model without an adapter"
    yield (
        f"It continues with {code(str(adapter))}, copied to `adapter`; the KL reference is {reference}. The prompts "
        f"are those of seed {config.seed}, as before: `--set seed={config.seed + 1}` draws others."
    )
    if not is_trl and config.model.bits == 4:
        yield "That adapter has learned over weights in 4 bit, and continues over those in 16."


_MORE_MEMORY = (
    "Plain TRL takes more memory than lowmem-rl with the same micro-batch. If a card runs out of it, halve "
    "`per_device_train_batch_size` in `trl.json` and double `gradient_accumulation_steps` and `steps_per_generation`: "
    "no gradient changes."
)


def _places(config: RunConfig) -> Iterator[str]:
    """Yields the files and folders that the run names."""
    yield from (name for name in (*config.rewards, config.task.name) if is_user_code(name))
    if config.model.name != TINY and Path(config.model.name).is_dir():
        yield config.model.name


def _needs(config: RunConfig, cluster: Cluster) -> str:
    """Returns what must be installed there. The files use this version of lowmem-rl, not just any."""
    own, trackers = f"lowmem-rl {__version__}", set(config.logging.report_to)
    if cluster.to == "trl":
        further = sorted(trackers - {"tensorboard"}) + ["vllm"] * (config.rollout.engine == "vllm")
        return f"It needs {_listed(f'{own} with its extra `train`', *further)} on that machine."
    further = ["bitsandbytes"] * config.optimizer.name.endswith("8bit") + sorted(trackers & {"trackio"})
    needs = _listed("verl 0.9 with its extra `vllm`", "flash-attn", f"{own} without extras", "math-verify", *further)
    return f"It needs {needs} on every machine."


def _listed(*names: str) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _sixteen_bit(shape: ModelShape, cluster: Cluster) -> str:
    """Returns what the base takes that verl cannot keep in 4 bit."""
    learner, sampler = 4 * shape.num_params / cluster.cards / GIB, 2 * shape.num_params / GIB
    return (
        f"verl has no 4-bit base. Its weights take {learner:.1f} GiB of each card in float32, sharded over "
        f"{cluster.cards}, and vLLM's copy {sampler:.1f} GiB more. Up to 8 cards of one machine keep 4 bit with "
        "`lowmem-rl scale-out ... --to trl`."
    )
