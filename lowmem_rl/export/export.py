"""One export: ask the trained model, write the files to a temporary folder, ask them, and accept or refuse them."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lowmem_rl.config.compose import ConfigLayer, SettingEntry, merge
from lowmem_rl.config.places import TASK, check_places
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.config.user_code import check_allowed
from lowmem_rl.engine.adapter import WEIGHTS
from lowmem_rl.engine.device import Device, device_on, dtype_fault
from lowmem_rl.engine.lineage import PROOF, stages_of_run, without_folders
from lowmem_rl.engine.policy import TRAINABLE
from lowmem_rl.engine.trained_model import TrainedAdapter, check_adapter, config_of, find_trained_adapter
from lowmem_rl.engine.weights_files import LearnedWeights, write_weights
from lowmem_rl.entrypoints.preflight import check_weights
from lowmem_rl.errors import ConfigError, RunDirError
from lowmem_rl.evaluation.eval_set import held_out_examples
from lowmem_rl.evaluation.grader import Grader, grader_of
from lowmem_rl.example import Example
from lowmem_rl.export.export_spec import ExportSpec, make_spec
from lowmem_rl.export.gguf import FILE, JobFailed, LlamaCpp, answer_with_gguf, convert, find_llama_cpp
from lowmem_rl.export.model_answers import Answer
from lowmem_rl.export.model_card import render_card
from lowmem_rl.export.plain_worker import BaseModelSpec
from lowmem_rl.export.proof import AccuracyCheck, ModelAnswers, Proof, check_accuracy, check_tokens
from lowmem_rl.export.reference_answers import ReferenceAnswers, answer_with_trained
from lowmem_rl.models.fingerprint import base_digests
from lowmem_rl.models.hardware import this_machine
from lowmem_rl.models.lookup import model_path
from lowmem_rl.prompts import conversation
from lowmem_rl.reports.run_record import read_record
from lowmem_rl.storage.run_dir import RunDir, read_json, write_json
from lowmem_rl.tasks.task import Task
from lowmem_rl.tasks.task_registry import load_task
from lowmem_rl.telemetry.events import Listener, Note, PhaseStarted
from lowmem_rl.telemetry.output_capture import capture_library_output
from lowmem_rl.workers import JsonWorker, RequestFailed, WorkerFailed

CARD = "README.md"
_SETTINGS = "adapter_config.json"
_ITEMS = {"tokens": 64, "accuracy": 200}
"""Held-out items of a proof, by its kind."""
_UNSAFE = (".bin", ".pt", ".pth", ".pkl")
"""Suffixes of files that run code when they are loaded: none is exported."""


class ExportRefused(RunDirError):
    """An export that does not answer like its run's own model."""


@dataclass(frozen=True, slots=True)
class Export:
    """The folder of an export, what it is, and why it was accepted."""

    path: Path
    spec: ExportSpec
    proof: Proof


def export(
    run_path: Path,
    to: str,
    *,
    base: str | None = None,
    out: Path | None = None,
    examples: int | None = None,
    allow_code: bool = False,
    places: Sequence[ConfigLayer] = (),
    listen: Listener = lambda event: None,
) -> Export:
    """Writes the model of a run's directory, or of `best` in it, for others, with the proof that it is that model.

    `places` name files of the run again that have moved. Raises `ConfigError`, `RunDirError`, `TaskError` or
    `SetupError` before the model is loaded, `ExportRefused` if the files do not answer like the trained model; then
    only the proof is kept.
    """
    adapter = find_trained_adapter(run_path)
    run, config = adapter.run, config_of(adapter.run, places)
    device = device_on(this_machine(), config)
    spec = make_spec(config, device, to, base)
    llama_cpp = find_llama_cpp() if spec.to == "gguf" else None
    check_adapter(adapter, config)
    path = _free_folder(out or run.export(f"best-{spec.to}" if adapter.is_best else spec.to))
    task = _task_of(run, config, places, allow_code=allow_code)
    held_out, grader = held_out_examples(task, config.task, examples or _ITEMS[spec.kind]), grader_of(task)
    check_weights(config)
    log = _log_of(run, path)
    with capture_library_output(log):
        trained = _ask_trained(spec, adapter, config, device, held_out, listen)
        spec = replace(spec, asked=tuple(trained.template.fit(conversation("...", config.task.prompt))))
        with _temporary_folder(path) as folder:
            listen(PhaseStarted(f"writing {spec.to} files"))
            write_files(spec, adapter, trained, folder, log)
            if llama_cpp:
                proof = _prove_gguf(llama_cpp, trained, folder, grader, log, listen)
            else:
                proof = _prove_reloaded(spec, trained, folder, grader, log, listen)
            _accept(proof, spec, adapter, path, folder)
    return Export(path, spec, proof)


def _task_of(run: RunDir, config: RunConfig, places: Sequence[ConfigLayer], *, allow_code: bool) -> Task:
    """Returns a run's task. Raises `ConfigError` if it is code that may not run or is no longer at its place."""
    origin = merge(places).get(TASK, SettingEntry(None, str(run.config))).origin
    check_allowed({config.task.name: origin}, allow_code=allow_code)
    check_places({TASK: config.task.name, "task.path": config.task.path})
    return load_task(config.task)


def _ask_trained(
    spec: ExportSpec,
    adapter: TrainedAdapter,
    config: RunConfig,
    device: Device,
    held_out: Sequence[Example],
    listen: Listener,
) -> ReferenceAnswers:
    if fault := dtype_fault(config, device):
        listen(Note(fault))
    listen(PhaseStarted(f"loading {config.model.name} with what it has learned"))
    return answer_with_trained(adapter, config, device, held_out, listen, spec.rounded_to)


def _prove_gguf(
    llama_cpp: LlamaCpp, trained: ReferenceAnswers, folder: Path, grader: Grader, log: Path, listen: Listener
) -> Proof:
    """Turns merged files into one GGUF file, and asks llama.cpp with it."""
    merged, file = sorted(folder.iterdir()), folder / FILE
    convert(llama_cpp, folder, file, log)
    for part in merged:
        part.unlink()
    listen(PhaseStarted("loading it again with llama.cpp, and asking the same"))
    texts = [trained.template.prefill + text for text in answer_with_gguf(llama_cpp, file, trained.asked, log)]
    return Proof("accuracy", None, _compare_accuracy(trained, texts, grader))


def _prove_reloaded(
    spec: ExportSpec, trained: ReferenceAnswers, folder: Path, grader: Grader, log: Path, listen: Listener
) -> Proof:
    """Asks the files in a process that has transformers and peft alone."""
    listen(PhaseStarted("loading it again with transformers and peft alone, and asking the same"))
    request = reload_request(spec, trained, folder)
    return compare_answers(spec, trained, _in_subprocess("answer_reloaded", request, log), grader)


def write_files(spec: ExportSpec, adapter: TrainedAdapter, trained: ReferenceAnswers, folder: Path, log: Path) -> None:
    """Writes the files of an export. Raises `ConfigError` if there is no 16-bit original, `JobFailed`, `OSError`."""
    base = trained.base
    if spec.to == "weights":
        _write_weights(spec, adapter, folder)
        return
    if spec.to == "adapter":
        _copy_files(adapter.adapter, folder)
        settings = read_json(folder / _SETTINGS)
        if not isinstance(settings, dict):
            what = f"{adapter.adapter / _SETTINGS} holds no JSON object."
            raise RunDirError(what, hint="Bring the run's own file back.")
        write_json(folder / _SETTINGS, settings | {"base_model_name_or_path": base.name, "revision": base.revision})
        return
    if spec.base == "16bit":
        # A 16-bit base keeps the type of training: its weights plus what was learned round in a narrower one.
        base = BaseModelSpec(model_path(spec.base_name), base.revision, None, "auto" if spec.bits == 4 else base.dtype)
    request = {"base": asdict(base), "adapter": str(adapter.adapter.resolve()), "folder": str(folder)}
    if _in_subprocess("merge", request, log)["was_quantised"] and spec.base == "16bit":
        what = f"{spec.base_name} is stored in 4 bit: there is no 16-bit original of it."
        raise ConfigError(what, hint="Leave --base out.")


def _write_weights(spec: ExportSpec, adapter: TrainedAdapter, folder: Path) -> None:
    import torch

    _copy_files(adapter.adapter, folder, (_SETTINGS, WEIGHTS, TRAINABLE))
    base = {"base": spec.base_name, "revision": spec.revision, "bits": spec.bits}
    about = {"method": "full", **base, "base_digests": base_digests(spec.base_name, spec.revision)}
    write_weights(LearnedWeights(adapter.adapter), folder, getattr(torch, spec.weights_dtype), about)


def _copy_files(adapter: Path, folder: Path, without: Sequence[str] = ()) -> None:
    """Copies an adapter's files, all but its card, those named and those that run code."""
    for file in adapter.iterdir():
        is_plain = file.is_file() and not file.is_symlink() and file.suffix not in _UNSAFE
        if is_plain and file.name not in (CARD, *without):
            shutil.copyfile(file, folder / file.name)


def reload_request(spec: ExportSpec, trained: ReferenceAnswers, folder: Path) -> dict[str, Any]:
    """Returns the request that asks the files in `folder` what the trained model was asked."""
    base = trained.base if spec.to == "adapter" else None
    if spec.to == "weights":
        base = BaseModelSpec(model_path(spec.base_name), spec.revision, None, trained.base.dtype)
    return {
        "folder": str(folder),
        "base": base and asdict(base),
        "is_whole": spec.is_whole,
        "messages": [trained.template.fit(example.prompt) for example in trained.examples],
        "prefill": trained.template.prefill,
        "asked": asdict(trained.asked),
        "trained": [asdict(answer) for answer in trained.own.answers],
    }


def compare_answers(spec: ExportSpec, trained: ReferenceAnswers, reloaded: Mapping[str, Any], grader: Grader) -> Proof:
    """Returns the proof, given what `answer_reloaded` returned."""
    answers = [Answer(**answer) for answer in reloaded["answers"]]
    exported = ModelAnswers(reloaded["prompts"], answers, reloaded["read_own"])
    tokens = check_tokens(trained.own, exported, reloaded["read_trained"], spec.compute_dtype)
    return Proof(spec.kind, tokens, _compare_accuracy(trained, reloaded["texts"], grader))


def _compare_accuracy(trained: ReferenceAnswers, texts: Sequence[str], grader: Grader) -> AccuracyCheck:
    both = (zip(each, trained.examples, strict=True) for each in (trained.texts, texts))
    return check_accuracy(*([grader.is_right(*pair) for pair in pairs] for pairs in both))


def _in_subprocess(job: str, request: Mapping[str, Any], log: Path) -> Any:
    """Returns the answer of a job of `plain_worker`. Raises `JobFailed` with the last line of its log."""
    with JsonWorker("lowmem_rl.export.plain_worker", log) as worker:
        try:
            return worker.ask({"job": job, **request})
        except WorkerFailed as error:
            reason = worker.last_lines(1) or [f"the process ended with {error.code}"]
            raise JobFailed(reason[0][:300]) from error


def _accept(proof: Proof, spec: ExportSpec, adapter: TrainedAdapter, path: Path, folder: Path) -> None:
    """Writes proof and card next to accepted files. Raises `ExportRefused` after writing the proof alone."""
    stages = [without_folders(stage) for stage in stages_of_run(adapter.run, adapter.adapter)]
    content = {"what": spec.what, "loaded_by": spec.loaded_by} | proof.to_json() | {"stages": stages}
    refused = path.with_name(f"{path.name}.refused.json")
    if proof.faults:
        write_json(refused, content)
        exact = "merged" if spec.is_whole else "adapter"
        if spec.kind == "accuracy":
            advice = f"--examples asks more items; --to {exact} keeps the weights that were trained."
        else:
            advice = f"Is {adapter.adapter} the run's own?" if spec.to == exact else f"Try --to {exact}."
        raise ExportRefused(
            f"Refused: the exported model does not answer like the trained one: {'; '.join(proof.faults)}.",
            hint=f"Nothing is in {path}; {refused} says what differs. {advice}",
        )
    write_json(folder / PROOF, content)
    card = render_card(read_record(adapter.run.path), spec, proof, of_best=adapter.is_best)
    (folder / CARD).write_text(card, "utf-8", "replace")
    refused.unlink(missing_ok=True)


def _free_folder(path: Path) -> Path:
    """Returns a folder that is new or empty. Raises `RunDirError`."""
    path = path.resolve()
    fix = "Give another with --out, or remove it."
    try:
        if path.exists() and any(path.iterdir()):
            raise RunDirError(f"{path} is not empty.", hint=fix)
        path.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunDirError(f"{path} cannot hold an export: {reason}.", hint=fix) from error
    return path


def _log_of(run: RunDir, path: Path) -> Path:
    """Returns the run's own log, or one next to the export if the run cannot be written."""
    try:
        run.log.open("ab").close()
    except OSError:
        return path.with_name(f"{path.name}.log")
    return run.log


@contextlib.contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    """Yields a folder next to `path` that is renamed to it at the end, or removed on an error."""
    folder = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        folder.mkdir()
        yield folder
        folder.replace(path)
    except (JobFailed, RequestFailed) as error:
        what = f"Refused: the export cannot be made, or not be loaded again: {error}."
        raise ExportRefused(what, hint=error.hint) from error
    except OSError as error:
        named = Path(str(error.filename or path))
        if named.is_relative_to(path.parent):
            what = f"{path} cannot be written: {error.strerror}."
            raise RunDirError(what, hint="Give another with --out.") from error
        raise RunDirError(f"{named}: {error.strerror}.", hint="The export needs this file.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
