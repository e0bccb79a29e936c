"""Trials as tasks of Ray Core: one a GPU, on every machine on which `ray start` was called.

Ray carries command lines, no state: retries are ours, because they resume. Ray Tune would stop arms early, which an
honest comparison must not, and keep a second truth next to the run directories.
"""

from pathlib import Path
from typing import Any

from lowmem_rl.errors import SetupError
from lowmem_rl.experiment.launch import Ended, Job
from lowmem_rl.experiment.node import NodeFacts, node_facts, run_to_end, write_token

_INSTALL = "pip install 'lowmem-rl[cluster]', on each machine."


class RayLauncher:
    """Tasks of the Ray cluster that this process is connected to, or finds by RAY_ADDRESS or on this machine."""

    def __init__(self, jobs: int, out: Path, cpus: int = 1, card: str | None = None, *, force: bool = False) -> None:
        """`card` is that of runs that are there.

        Raises `SetupError` without Ray, without a cluster, and for machines that cannot work on one study.
        """
        ray = _connected()
        facts = _facts_of_nodes(ray, out)
        check_nodes(facts, out, card, force=force)
        self.jobs, self._ray, self._names = jobs, ray, dict[Any, str]()
        gpus = 0 if all(one.card == "cpu" for one in facts) else 1
        self._task = ray.remote(_run).options(num_gpus=gpus, num_cpus=cpus, max_retries=0)

    def start(self, job: Job) -> None:
        """Submits a job."""
        self._names[self._task.remote(job.arguments, str(job.log))] = job.name

    def wait(self) -> Ended:
        """Returns the next job that has ended; one whose worker or machine died has no exit code."""
        (ready, *_), _ = self._ray.wait(list(self._names), num_returns=1)
        name = self._names.pop(ready)
        try:
            code, host = self._ray.get(ready)
        except self._ray.exceptions.RayError:
            return Ended(name, None, "lost")
        return Ended(name, code, host)

    def stop(self) -> None:
        """Interrupts each task, whose run then saves, and waits for all."""
        for task in self._names:
            self._ray.cancel(task)
        self._ray.wait(list(self._names), num_returns=len(self._names)) if self._names else None
        self._names.clear()


def check_nodes(facts: list[NodeFacts], out: Path, card: str | None = None, *, force: bool) -> None:
    """Raises `SetupError` unless all machines share the directory and have one version, commit and kind of card.

    That is also `card`, that of the runs that are there, if there are any.
    """
    for one in facts:
        if not one.sees_study:
            what = f"{one.host} does not see {out}: the study's directory is not shared."
            raise SetupError(what, hint="Put it on storage that all machines mount at the same path: --out DIR.")
    for name in ("version", "commit", "card"):
        found = {getattr(one, name): one.host for one in facts}
        if len(found) > 1 and not (force and name == "card"):
            (first, host), (other, elsewhere) = list(found.items())[:2]
            what = f"{host} and {elsewhere} differ in {name}: {first} and {other}."
            hint = "Use machines with the same card; --force takes these, and times are then not comparable."
            raise SetupError(what, hint=hint if name == "card" else "Install the same lowmem-rl on both.")

    other = next((one for one in facts if card and one.card != card), None)
    if other and not force:
        what = f"{other.host} has another card than the runs in {out}: {other.card}, not {card}."
        raise SetupError(what, hint="Use machines with that card; --force takes these, and times do not compare.")


def _connected() -> Any:
    try:
        import ray
    except ImportError as error:
        raise SetupError("--on ray needs Ray, which is not installed.", hint=_INSTALL) from error
    if not ray.is_initialized():
        try:
            ray.init(address="auto", log_to_driver=False)
        except ConnectionError as error:
            hint = "ray start --head here, then ray start --address=HERE:6379 on the others."
            raise SetupError("--on ray finds no Ray cluster.", hint=hint) from error
    return ray


def _facts_of_nodes(ray: Any, out: Path) -> list[NodeFacts]:
    """Asks each machine of the cluster."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    token, asked = write_token(out), []
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(node_facts).options(num_cpus=0, scheduling_strategy=there)
            asked.append(task.remote(out, token))
    return list(ray.get(asked))


def _run(arguments: tuple[str, ...], log: str) -> tuple[int, str]:
    """Runs a command on the machine that Ray has chosen; Ray sets CUDA_VISIBLE_DEVICES."""
    import socket

    return run_to_end(arguments, Path(log), {}), socket.gethostname()
