"""What every test relies on: no network, no file outside a temporary directory, fixed seeds, the real command line."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import settings

from tests.rehearsal.preloaded_python import FOLDER, OWNER, end_shared_servers, preloaded_python
from tests.rehearsal.stage import make_folder

ROOT = Path(__file__).parents[1]
OFFLINE = Path(__file__).parent / "offline"
HOME = Path(tempfile.mkdtemp(prefix="lowmem-rl-tests-"))
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
SMOLLM2 = Path(os.environ.get("LOWMEM_RL_SMOLLM2") or _CACHE / "lowmem-rl" / "smollm2-135m-instruct")
"""The folder that scripts/get_smollm2 makes, where the user has it."""

# Set before any test module is imported, since libraries read these when they load.
os.environ |= {
    "PYTHONPATH": os.pathsep.join(filter(None, [str(OFFLINE), os.environ.get("PYTHONPATH")])),
    "HF_HOME": str(HOME / "huggingface"),
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",  # not measured for each model that a test loads
    "HYPOTHESIS_STORAGE_DIRECTORY": str(ROOT / ".pytest_cache" / "hypothesis"),  # a table of Unicode takes it 2 s
    "MPLCONFIGDIR": str(HOME / "matplotlib"),
    "TORCHINDUCTOR_CACHE_DIR": str(HOME / "inductor"),
    "TRITON_CACHE_DIR": str(HOME / "triton"),
    "UNSLOTH_COMPILE_LOCATION": str(HOME / "unsloth_compiled_cache"),
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "XDG_CACHE_HOME": str(HOME / "cache"),
    "XDG_CONFIG_HOME": str(HOME / "config"),
    "XDG_DATA_HOME": str(HOME / "data"),
    # The same help pages and tables on every machine.
    "COLUMNS": "100",
    "NO_COLOR": "1",
    "TERM": "dumb",
}
os.environ.pop("FORCE_COLOR", None)
if OWNER not in os.environ:  # workers of pytest-xdist inherit it
    os.environ |= {OWNER: str(os.getpid()), FOLDER: str(make_folder("lowmem-rl-servers-"))}

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


def _go_offline() -> None:
    spec = spec_from_file_location("offline", OFFLINE / "sitecustomize.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(module_from_spec(spec))


_go_offline()
# A shell's background and nohup ignore these signals, and every child process inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(trylast=True)  # after the marks of other folders
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: at the end the workers of pytest-xdist share what is short."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile` all rehearsals stay in one worker, with the cards' loaded stacks."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            folder = "tests/rehearsal/"
            return folder if nodeid.startswith(folder) else super()._split_scope(nodeid)

    return Scheduling(config, log)


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME, ignore_errors=True)
    if os.environ[OWNER] == str(os.getpid()):
        end_shared_servers()


@pytest.fixture(autouse=True)
def _in_a_fresh_directory_with_fixed_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random.seed(0)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(0)
    if torch := sys.modules.get("torch"):
        # torch.manual_seed formats a stack for each kind of card that is not there.
        torch.default_generator.manual_seed(0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB; skips the test if this process cannot mount one."""
    disk = tmp_path / "small-disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct, for tests marked `real_model`; skips the test if it is not there."""
    if not (SMOLLM2 / "config.json").is_file():
        pytest.skip(f"no pretrained model in {SMOLLM2}: scripts/get_smollm2 fetches it (93 MB)")
    return SMOLLM2


@pytest.fixture(scope="session")
def _preloaded_python() -> Iterator[Path]:
    with preloaded_python() if sys.platform == "linux" else nullcontext(Path(sys.executable)) as python:
        yield python


@pytest.fixture(scope="module")
def preloaded(_preloaded_python: Path) -> Iterator[Path]:
    """Lets commands and workers have the stack loaded already, from a module's first test that asks; on Linux alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(_preloaded_python))
        yield _preloaded_python


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


Cli = Callable[..., Outcome]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Runs the installed `lowmem-rl` in its own process: `cli("train", "--dry-run")`."""
    command = Path(sys.executable).with_name("lowmem-rl")

    def run(*args: str, cwd: Path = tmp_path, timeout_s: float = 300, **environment: str) -> Outcome:
        done = subprocess.run(
            [command, *args],
            cwd=cwd,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def started() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts the installed `lowmem-rl` and does not wait; what still runs at the end of the test is killed."""
    command, processes = Path(sys.executable).with_name("lowmem-rl"), []

    def start(*args: str, **environment: str) -> "subprocess.Popen[str]":
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen([command, *args], env=os.environ | environment, **pipes))
        return processes[-1]

    yield start
    for process in processes:
        with process:  # closes the pipes and waits
            process.kill()


@pytest.fixture
def cli_here(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs the same command in this process: faster, for commands that load nothing heavy."""

    def run(*args: str) -> Outcome:
        from lowmem_rl_cli.app import main

        capsys.readouterr()
        return Outcome(main([*map(str, args)]), *capsys.readouterr())

    return run
