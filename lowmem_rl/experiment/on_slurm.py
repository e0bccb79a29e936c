"""Trials as SLURM jobs, through submitit.

A job that SLURM pre-empts or that runs out of time gets a signal: its run saves, and the job is queued
again, where it resumes.
"""

import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lowmem_rl.errors import SetupError
from lowmem_rl.experiment.launch import Ended, Job
from lowmem_rl.experiment.node import NodeFacts, claim_card, node_facts, run_to_end, set_card, write_token
from lowmem_rl.experiment.study import SlurmTable

_INSTALL = "pip install 'lowmem-rl[slurm]', where `sbatch` works."
_WRONG_NODE = 3


class SlurmLauncher:
    """Jobs of the SLURM that `sbatch` on this machine submits to; `cluster` "local" runs them here, for a trial."""

    def __init__(
        self,
        jobs: int,
        out: Path,
        table: SlurmTable,
        cluster: str | None = None,
        card: str | None = None,
        *,
        force: bool = False,
    ) -> None:
        """`card` is that of runs that are there; any is taken by `force`. Raises `SetupError` without SLURM."""
        try:
            import submitit
        except ImportError as error:
            raise SetupError("--on slurm needs submitit, which is not installed.", hint=_INSTALL) from error
        try:
            executor = submitit.AutoExecutor(out / "slurm", cluster=cluster or "slurm")
        except RuntimeError as error:
            hint = "Start the study where `sbatch` and `srun` work."
            raise SetupError("--on slurm finds no SLURM on this machine.", hint=hint) from error
        executor.update_parameters(**_parameters(table, executor.cluster))
        self.jobs, self._executor, self._running = jobs, executor, dict[str, Any]()
        token = write_token(out)
        self._poll_s = 0.5 if executor.cluster == "local" else 10.0
        self._out, self._check = out, NodeCheck(token, node_facts(out, token), any_card=force)
        set_card(out, card)

    def start(self, job: Job) -> None:
        """Submits a job."""
        self._running[job.name] = self._executor.submit(Work(job.arguments, job.log, self._out, self._check))

    def wait(self) -> Ended:
        """Polls, as submitit does: SLURM sends nothing."""
        while True:
            for name, job in self._running.items():
                if job.done():
                    del self._running[name]
                    return _ended(name, job)
            time.sleep(self._poll_s)

    def stop(self) -> None:
        """Cancels all jobs: SLURM sends SIGTERM, on which a run saves."""
        for job in self._running.values():
            job.cancel(check=False)
        self._running.clear()


@dataclass(frozen=True, slots=True)
class NodeCheck:
    """What a node must be like to run a trial; asked on the node, because SLURM chooses it."""

    token: str
    driver: NodeFacts
    any_card: bool

    def problem(self, out: Path, here: NodeFacts) -> str:
        """Returns in two lines what is wrong with a node and what to do, empty if nothing is."""
        if not here.sees_study:
            return f"error: {here.host} does not see {out}\nhint: put it on storage that all machines share\n"
        if (here.version, here.commit) != (self.driver.version, self.driver.commit):
            return f"error: {here} is not as {self.driver}\nhint: install the same lowmem-rl on both\n"
        if not self.any_card and (card := claim_card(out, here.card)) != here.card:
            hint = "set constraint in [run.slurm]; --force takes any, and times are then not comparable"
            return f"error: {here.host} has another card than the study's runs: {here.card}, not {card}\nhint: {hint}\n"
        return ""


@dataclass(frozen=True)
class Work:
    """What a job does: an object, because submitit asks it how to continue after a pre-emption."""

    arguments: tuple[str, ...]
    log: Path
    out: Path
    check: NodeCheck

    def __call__(self) -> tuple[int, str]:
        here = node_facts(self.out, self.check.token)
        if problem := self.check.problem(self.out, here):
            with self.log.open("a") as log:
                log.write(problem)
            return _WRONG_NODE, here.host
        return run_to_end(self.arguments, self.log, {}), socket.gethostname()

    def checkpoint(self) -> Any:
        """Asks for a new job that resumes; submitit calls it in the job, whose run SLURM has signalled, too."""
        import submitit

        run = self.arguments[self.arguments.index("--out") + 1]
        allowed = [argument for argument in self.arguments if argument in ("--allow-code", "--force")]
        resumed = ("train", "--resume", *allowed, "--out", run)
        return submitit.helpers.DelayedSubmission(replace(self, arguments=resumed))


def _parameters(table: SlurmTable, cluster: str) -> dict[str, Any]:
    """Returns submitit's names for what `sbatch` gets; parameters of SLURM alone begin with its name."""
    shared, own = (
        ("timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb"),
        ("partition", "constraint", "account", "qos"),
    )
    named = {name: name for name in shared} | ({f"slurm_{name}": name for name in own} if cluster == "slurm" else {})
    return {name: value for name, key in named.items() if (value := getattr(table, key)) is not None}


def _ended(name: str, job: Any) -> Ended:
    import submitit

    try:
        code, host = job.result()
    except submitit.core.utils.UncompletedJobError:
        return Ended(name, None, "lost")
    except submitit.core.utils.FailedJobError:
        return Ended(name, 1, "slurm")
    return Ended(name, code, host)
