import subprocess
import sys
from pathlib import Path

import pytest
from lowmem_rl_cli.app import expand_home, main
from lowmem_rl_cli.options import RunRequest

from lowmem_rl import __version__
from lowmem_rl.errors import ConfigError

COMMAND = Path(sys.executable).with_name("lowmem-rl")


def test_without_arguments_it_shows_its_commands(cli_here):
    outcome = cli_here()
    assert outcome.code == 0
    assert all(f"  {name} " in outcome.stdout for name in ("doctor", "train", "presets"))


@pytest.mark.parametrize("module", ["lowmem_rl", "lowmem_rl_cli"])
def test_python_m_is_the_command_with_its_exit_codes(module):
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False, timeout=60
        )

    assert run("--version").stdout == f"lowmem-rl {__version__}\n"
    assert run("train", "--help").stdout.startswith("Usage: lowmem-rl train ")
    assert run("presets", "show", "tiny").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--out=~/x"], ["--out={home}/x"]),
        (["--out", "~/x"], ["--out", "{home}/x"]),
        (["--config=~/a.toml", "~"], ["--config={home}/a.toml", "{home}"]),
        (["--reward=~/r.py:f=1.0"], ["--reward={home}/r.py:f=1.0"]),
        (["--prompt=~/x", "--prompt", "~ 3"], ["--prompt=~/x", "--prompt", "~ 3"]),
        (["--out=a~b", "a=~/x", "~nobody-here/x"], ["--out=a~b", "a=~/x", "~nobody-here/x"]),
    ],
)
def test_the_home_directory_is_expanded_where_no_shell_does(arguments, expected, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_home(arguments) == [text.format(home=tmp_path) for text in expected]


def test_out_in_the_home_directory(cli_here, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    outcome = cli_here("train", "--preset=tiny-cpu", "--dry-run", "--json", "--out=~/my run")
    assert f'"{tmp_path}/my run/trackers"' in outcome.stdout


def test_it_tells_its_version(cli_here):
    assert cli_here("--version").stdout == f"lowmem-rl {__version__}\n"


@pytest.mark.parametrize("command", [[], ["doctor"], ["train"], ["presets"], ["presets", "show"]])
def test_every_help_page_is_shown(cli_here, command):
    outcome = cli_here(*command, "--help")
    assert outcome.stdout.startswith(f"Usage: {' '.join(['lowmem-rl', *command])} ")
    assert (outcome.code, outcome.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["trian"], "No such command 'trian'.", "Did you mean 'train'?"),
        (["train", "--stepz", "3"], "No such option: --stepz.", "Did you mean --steps"),
        (["train", "--lr=1e-5"], "No such option: --lr.", "Did you mean --set optimizer.learning_rate=VALUE?"),
        (["train", "--grpo.beta", "1"], "No such option: --grpo.beta.", "Did you mean --set grpo.beta=VALUE?"),
        (["train", "--output_dir=x"], "No such option: --output_dir.", "Did you mean --out DIR?"),
        (
            ["train", "--steps", "x"],
            "Invalid value for '--steps': must be a valid integer.",
            "`lowmem-rl train --help`",
        ),
        (["presets", "show"], "Missing argument 'NAME'.", "`lowmem-rl presets show --help`"),
        (["presets", "show", "tiny"], "There is no preset named 'tiny'.", "Did you mean tiny-cpu"),
        (["train", "--dry-run", "--set", "seed"], "--set 'seed' is not KEY=VALUE.", "Write --set KEY=VALUE."),
    ],
)
def test_a_mistake_is_two_lines_on_stderr_and_exit_code_2(cli_here, arguments, error, hint):
    code, stdout, stderr = cli_here(*arguments)
    first, second = stderr.splitlines()
    assert first == f"error: {error}"
    assert second.startswith(f"hint: {hint}")
    assert (code, stdout) == (2, "")


def test_a_request_puts_flags_above_settings_and_replaces_rewards():
    request = RunRequest("tiny-cpu", settings=("grpo.steps=3",), steps=4, rewards=("random=0.5",), task="gsm8k", seed=1)
    composed = request.resolve()
    config = composed.config
    assert (config.grpo.steps, config.task.name, config.seed, config.rewards) == (4, "gsm8k", 1, {"random": 0.5})
    keys = ("grpo.steps", "task.name", "seed", "rewards.random")
    assert [composed.origins[key] for key in keys] == ["--steps", "--task", "--seed", "--reward"]


@pytest.mark.parametrize("rewards", [("random",), ("random=x",), ("random=1", "random=2"), ("=1",)])
def test_a_reward_needs_a_name_and_one_weight(rewards):
    with pytest.raises(ConfigError):
        RunRequest("tiny-cpu", rewards=rewards).resolve()


def test_arguments_that_are_no_text_make_no_traceback():
    done = subprocess.run([COMMAND, "presets", "show", b"\xff\xfe"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: There is no preset named")


def test_a_reader_that_leaves_is_no_error():
    page = subprocess.Popen([COMMAND, "presets", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert page.stdout is not None
    page.stdout.close()
    _, stderr = page.communicate()
    assert stderr == ""


def test_a_bug_goes_through_with_its_traceback():
    with pytest.raises(TypeError):
        main(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["presets", "list"], ["presets", "show", "tiny-cpu"]]
)
def test_what_needs_no_model_loads_no_torch(arguments):
    program = f"import sys; from lowmem_rl_cli.app import main; main({arguments}); print(*sys.modules, file=sys.stderr)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr.split()
    assert not {"torch", "transformers", "trl", "unsloth", "datasets", "rich"} & set(loaded)
