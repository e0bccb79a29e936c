"""One export, told once: hear the trained model, write the files aside, hear them, and give them their name or none."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowmem_rl.config.user_code import check_allowed
from lowmem_rl.engine.device import device_on
from lowmem_rl.engine.trained_model import TrainedAdapter, check_adapter, config_of, find_learnt
from lowmem_rl.entrypoints.preflight import check_weights
from lowmem_rl.errors import ConfigError, RunDirError
from lowmem_rl.evaluation.eval_set import held_out_examples
from lowmem_rl.evaluation.grader import Grader, grader_of
from lowmem_rl.export.export_spec import ExportSpec, form_of
from lowmem_rl.export.gguf import FILE, JobFailed, LlamaCpp, answer_with_gguf, convert, find_llama_cpp
from lowmem_rl.export.model_answers import Answer
from lowmem_rl.export.model_card import card_of
from lowmem_rl.export.plain_loader import BaseModelSpec
from lowmem_rl.export.proof import AccuracyCheck, ModelAnswers, Proof, check_accuracy, check_tokens
from lowmem_rl.export.reference_answers import ReferenceAnswers, answer_with_trained
from lowmem_rl.models.hardware import this_machine
from lowmem_rl.models.lookup import model_path
from lowmem_rl.reports.run_record import read_record
from lowmem_rl.storage.run_dir import RunDir, read_json, write_json
from lowmem_rl.tasks.task_registry import load_task
from lowmem_rl.telemetry.events import Listener, PhaseStarted
from lowmem_rl.telemetry.output_capture import capture_library_output
from lowmem_rl.workers import JsonWorker, RequestFailed, WorkerEnded

ITEMS = {"tokens": 64, "accuracy": 200}
"""Held-out items of a proof, by its kind."""
PROOF, CARD, SETTINGS = "proof.json", "README.md", "adapter_config.json"
UNSAFE = (".bin", ".pt", ".pth", ".pkl")
"""Suffixes of files that run code when they are loaded: none is handed on."""


class ExportRefused(RunDirError):
    """An export that does not answer like its run's own model."""


@dataclass(frozen=True, slots=True)
class Export:
    """Where an export lies, what it is, and what it was accepted for."""

    path: Path
    form: ExportSpec
    proof: Proof


def export(
    run_path: Path,
    to: str,
    *,
    base: str | None = None,
    out: Path | None = None,
    examples: int | None = None,
    allow_code: bool = False,
    listen: Listener = lambda event: None,
) -> Export:
    """Writes a run's model for others, with the proof that it is that model.

    `run_path` is a run's directory, or in it `best`. Raises `ConfigError`, `RunDirError`, `TaskError` or `SetupError`
    before the model is loaded, `ExportRefused` where the exported files do not answer like the trained model; then the
    proof alone is kept.
    """
    learnt = find_learnt(run_path)
    run, config = learnt.run, config_of(learnt.run)
    device = device_on(this_machine(), config)
    form = form_of(config, device, to, base)
    llama_cpp = find_llama_cpp() if form.to == "gguf" else None
    check_adapter(learnt)
    path = free_folder(out or run.export(f"best-{form.to}" if learnt.is_best else form.to))
    check_allowed({config.task.name: str(run.config)}, allow_code=allow_code)
    task = load_task(config.task)
    asked, grader = held_out_examples(task, config.task, examples or ITEMS[form.kind]), grader_of(task)
    check_weights(config)
    with capture_library_output(run.log):
        listen(PhaseStarted(f"loading {config.model.name} with the adapter"))
        trained = answer_with_trained(learnt, config, device, asked, listen)
        with _written_aside(path) as aside:
            listen(PhaseStarted(f"writing {form.to} files"))
            write(form, learnt, trained, aside)
            if llama_cpp:
                proof = _as_gguf(llama_cpp, run, trained, aside, grader, listen)
            else:
                listen(PhaseStarted("loading it again with transformers and peft alone, and asking the same"))
                proof = compared(
                    form, trained, _run_in_subprocess("reload_check", question(form, trained, aside), run.log), grader
                )
            _accept(proof, form, learnt, path, aside)
    return Export(path, form, proof)


def free_folder(path: Path) -> Path:
    """Returns a folder that is new or empty. Raises `RunDirError`."""
    path = path.resolve()
    cure = "Give another with --out, or remove it."
    try:
        if path.exists() and any(path.iterdir()):
            raise RunDirError(f"{path} is not empty.", hint=cure)
        path.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunDirError(f"{path} cannot hold an export: {reason}.", hint=cure) from error
    return path


def write(form: ExportSpec, learnt: TrainedAdapter, trained: ReferenceAnswers, folder: Path) -> None:
    """Writes the files of an export. Raises `ConfigError` for an original that is none, `JobFailed`, `OSError`."""
    if form.to == "adapter":
        _copy_adapter(learnt.adapter, folder, trained.base)
        return
    original = form.base == "16bit"
    base = BaseModelSpec(model_path(form.base_name), trained.base.revision, None, "auto") if original else trained.base
    order = {"base": base.to_json(), "adapter": str(learnt.adapter.resolve()), "folder": str(folder)}
    if _run_in_subprocess("merge", order, learnt.run.log)["was_quantised"] and original:
        raise ConfigError(
            f"{form.base_name} is stored in 4 bit: there is no 16-bit original of it.", hint="Leave --base out."
        )


def _run_in_subprocess(job: str, request: Mapping[str, Any], log: Path) -> Any:
    """Returns the answer of `lowmem_rl.export.<job>` in a process without Unsloth, which rewrites other libraries."""
    with JsonWorker(f"lowmem_rl.export.{job}", log) as worker:
        try:
            return worker.ask(request)
        except WorkerEnded as error:
            reason = worker.last_lines(1) or [f"the process ended with {error.code}"]
            raise JobFailed(reason[0][:300]) from error


def question(form: ExportSpec, trained: ReferenceAnswers, folder: Path) -> dict[str, Any]:
    """Returns the order that puts the trained model's questions to the files in `folder`."""
    return {
        "folder": str(folder),
        "base": trained.base.to_json() if form.to == "adapter" else None,
        "messages": [list(example.prompt) for example in trained.examples],
        "prefill": trained.prefill,
        "asked": trained.asked.to_json(),
        "trained": [answer.to_json() for answer in trained.heard.answers],
    }


def compared(form: ExportSpec, trained: ReferenceAnswers, said: Mapping[str, Any], grader: Grader) -> Proof:
    """Returns the proof from what the exported files have said."""
    heard = ModelAnswers(said["prompts"], [Answer(**answer) for answer in said["answers"]], said["read_own"])
    tokens = check_tokens(trained.heard, heard, said["read_trained"], form.compute_dtype)
    return Proof(form.kind, tokens, _right(trained, said["texts"], grader))


def _right(trained: ReferenceAnswers, texts: Sequence[str], grader: Grader) -> AccuracyCheck:
    """Judges what both models have said."""
    return check_accuracy(
        *(
            [grader.is_right(text, example) for text, example in zip(said, trained.examples, strict=True)]
            for said in (trained.texts, texts)
        )
    )


def _as_gguf(
    llama_cpp: LlamaCpp, run: RunDir, trained: ReferenceAnswers, folder: Path, grader: Grader, listen: Listener
) -> Proof:
    """Turns the merged model in `folder` into one file of llama.cpp's, and hears that. Raises `JobFailed`."""
    merged, file = sorted(folder.iterdir()), folder / FILE
    convert(llama_cpp, folder, file, run.log)
    for path in merged:
        path.unlink()
    listen(PhaseStarted("loading it again with llama.cpp, and asking the same"))
    texts = [trained.prefill + text for text in answer_with_gguf(llama_cpp, file, trained.asked, run.log)]
    return Proof("accuracy", None, _right(trained, texts, grader))


def _accept(proof: Proof, form: ExportSpec, learnt: TrainedAdapter, path: Path, folder: Path) -> None:
    """Writes proof and card beside accepted files. Raises `ExportRefused`, leaving the proof alone, for others."""
    content = {"what": form.what, "loaded_by": form.loaded_by} | proof.to_json()
    refused = path.with_name(f"{path.name}.refused.json")
    if proof.faults:
        write_json(refused, content)
        raise ExportRefused(
            f"Refused: the exported model does not answer like the trained one: {'; '.join(proof.faults)}.",
            hint=f"Nothing is in {path}; {refused} says what differs. {_other_way(form)}",
        )
    write_json(folder / PROOF, content)
    (folder / CARD).write_text(
        card_of(read_record(learnt.run.path), form, proof, of_best=learnt.is_best), "utf-8", "replace"
    )
    refused.unlink(missing_ok=True)


def _other_way(form: ExportSpec) -> str:
    if form.kind == "accuracy":
        return "--examples asks more items; --to adapter stands on the weights that were trained."
    return "Is the adapter the run's own?" if form.to == "adapter" else "--to adapter changes no weight."


def _copy_adapter(adapter: Path, folder: Path, base: BaseModelSpec) -> None:
    """Copies adapter and tokenizer, and names the base as it was loaded."""
    for file in adapter.iterdir():
        if file.is_file() and not file.is_symlink() and file.suffix not in UNSAFE and file.name != CARD:
            shutil.copyfile(file, folder / file.name)
    settings = read_json(folder / SETTINGS)
    if not isinstance(settings, dict):
        raise RunDirError(f"{adapter / SETTINGS} holds no JSON object.", hint="Bring the run's own file back.")
    write_json(folder / SETTINGS, settings | {"base_model_name_or_path": base.name, "revision": base.revision})


@contextlib.contextmanager
def _written_aside(path: Path) -> Iterator[Path]:
    """Yields a folder beside `path` that takes its name at the end, and is gone where it does not come to that."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.mkdir()
        yield aside
        aside.replace(path)
    except (JobFailed, RequestFailed) as error:
        raise ExportRefused(
            f"Refused: the export cannot be made, or not be loaded again: {error}.", hint=error.hint
        ) from error
    except OSError as error:
        raise RunDirError(f"{path} cannot be written: {error.strerror}.", hint="Give another with --out.") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
