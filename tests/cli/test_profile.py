import json
import re
from pathlib import Path

import pytest
from lowmem_rl_cli.options import RunRequest
from lowmem_rl_cli.profile_view import percent, span

from lowmem_rl.config.presets import load_preset, load_presets
from lowmem_rl.models.catalogue import CATALOGUE
from lowmem_rl.models.hardware import CARDS
from lowmem_rl.planning.step_time import SecondsRange
from lowmem_rl.units import GIB

PRESETS = [preset.name for preset in load_presets()]
PHASES = {"load", "rollout", "logprobs", "backward", "optimizer", "evaluation", "save"}
ROW = {
    "id": "a",
    "source": "https://example.org",
    "gpu": "NVIDIA A100 80GB",
    "stack": "trl",
    "loss": "sft",
    "method": "qlora",
    "model": "Qwen/Qwen2.5-7B",
    "lora_rank": 16,
    "lora_targets": ["q", "v"],
    "micro_batch": 1,
    "prompt_tokens": 0,
    "completion_tokens": 1024,
    "group_size": None,
    "rollout_rows": None,
    "checkpointing": "plain",
    "optimizer": "adamw_torch",
    "rollout_engine": None,
    "peak_allocated_bytes": 10 * GIB,
}


FIXED = [
    f"--set={setting}"
    for setting in (
        "memory.micro_batch=16",
        "memory.rollout_rows=128",
        "memory.checkpointing=unsloth",
        "rollout.weights=quantized",
    )
]
"""A run that leaves nothing to the planner."""


def answer(cli_here, *arguments: str) -> dict:
    outcome = cli_here("profile", *arguments, "--json")
    assert (outcome.code, outcome.stderr) == (0, "")
    return json.loads(outcome.stdout)


def write(path: Path, content: object) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_json_is_what_programs_rely_on(cli_here, preset):
    shown = answer(cli_here, "--preset", preset)
    types = {key: {name: type(value) for name, value in shown.pop(key).items()} for key in ("peak_bytes", "plan")}
    assert types["peak_bytes"] == {"expected": int, "upper": int}
    rollout = {"rollout_rows": int, "rollout_engine": str, "rollout_weights": str}
    assert types["plan"] == {"bits": int, "micro_batch": int, "checkpointing": str, "kept_states": str, **rollout}
    process, cost = shown.pop("process_bytes"), shown.pop("cost")
    assert (process is None) == (load_preset(preset).card == "cpu")
    if process:
        assert process.pop("assumes")
        assert {type(size) for size in process.values()} == {int}
    if cost:
        assert 0 < cost["low"] < cost["high"]
    signal = "note" if preset == "tinylora-7b" else "ok"  # its paper has groups of 4
    assert shown.pop("verdict") == {"memory": "fits", "signal": signal}
    assert type(shown.pop("budget_bytes")) is int
    phases = shown.pop("phases")
    assert shown.pop("peak_phase") in phases
    assert phases.keys() <= PHASES
    assert {type(size) for terms in phases.values() for size in terms.values()} == {int}
    group = shown.pop("group")
    assert type(group.pop("smallest_group_size")) in (int, type(None))
    assert {name: type(value) for name, value in group.items()} == {
        "group_size": int,
        "prompts_per_step": int,
        "informative_share": float,
        "informative_groups_per_step": float,
        "dead_step_probability": float,
    }
    step = shown.pop("step_seconds")
    assert step is None if load_preset(preset).card == "cpu" else 0 < step["low"] < step["high"]
    fields = {"change": str, "saves_bytes": int, "costs": str}
    assert all({name: type(value) for name, value in item.items()} == fields for item in shown.pop("advice"))
    assert shown.pop("pass_rate") == "unknown pass rate"
    assert shown.pop("calibration") is None
    assert bool(shown.pop("trainable")) == (preset == "onelayer-1.7b")
    assert shown == {}


@pytest.mark.parametrize(
    ("settings", "subject"),
    [
        (["trainable.layers=last:5"], "QLoRA of rank 16 in layers last:5"),
        (
            ["trainable.method=full", "trainable.layers=0-2", 'trainable.extra=["norm"]'],
            "layers 0-2 and norm over 4 bit",
        ),
        (["trainable.method=full", "trainable.schedule=badam", "model.bits=16"], "in all layers over 16 bit, badam"),
    ],
)
def test_it_names_what_learns_and_says_what_that_costs(cli_here, settings, subject):
    words = [f"--set={setting}" for setting in settings]
    shown = cli_here("profile", "--preset=qwen7b-a6000", *words)
    assert shown.code == 0, shown.stderr
    page = " ".join(shown.stdout.split())
    assert subject in page
    assert ("numbers learn whole" in page) == ("full" in settings[0])
    assert answer(cli_here, "--preset", "qwen7b-a6000", *words)["trainable"][0][:60] in page


def test_a_phase_is_the_sum_of_its_terms_and_the_peak_the_worst_phase(cli_here):
    shown = answer(cli_here, "--preset", "qwen7b-a6000")
    sums = {phase: sum(terms.values()) for phase, terms in shown["phases"].items()}
    assert max(sums.values()) == sums[shown["peak_phase"]] == shown["peak_bytes"]["expected"]


@pytest.mark.parametrize(
    ("arguments", "verdict", "sentence"),
    [
        ([], ("fits", "ok"), r"Fits: [\d.]+ of 47\.4 GiB at most; .* not known .*`lowmem-rl probe` .* in \d+ to \d+ s"),
        (["--pass-rate", "0.3"], ("fits", "ok"), r"Fits: [\d.]+ of 47\.4 GiB at most, and >99 % of the groups carry "),
        (["--vram", "4GiB"], ("does-not-fit", "ok"), r"Does not fit: [\d.]+ GiB expected, .* of 4\.0; whether its "),
        (["--pass-rate", "0"], ("fits", "too-small"), r"Fits: .*, but carries no signal: only 0 % of groups"),
        (["--pass-rate", "0.015"], ("fits", "warning"), r"Fits: .*, but the signal is thin: only 38 % of groups"),
        (["--vram", "4GiB", "--pass-rate", "0"], ("does-not-fit", "too-small"), r"Does not fit: .*, and carries no"),
    ],
)
def test_it_answers_with_exit_code_0_whatever_the_verdict(cli_here, arguments, verdict, sentence):
    arguments = ["--preset", "qwen7b-a6000", *arguments]
    assert tuple(answer(cli_here, *arguments)["verdict"].values()) == verdict
    outcome = cli_here("profile", *arguments)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert re.match(sentence, outcome.stdout.replace("\n", " "))
    assert ("`train` refuses this run" in outcome.stdout) == bool({"does-not-fit", "too-small"} & set(verdict))


def test_between_the_expected_and_the_upper_value_it_is_tight(cli_here):
    run = ["--preset", "qwen7b-a6000", *FIXED]
    peak = answer(cli_here, *run, "--vram", "40GiB")["peak_bytes"]
    between = f"{(peak['expected'] + peak['upper']) // 2 // 2**20}MiB"
    assert answer(cli_here, *run, "--vram", between)["verdict"]["memory"] == "tight"
    assert cli_here("profile", *run, "--vram", between).stdout.startswith("Tight: ")


def test_what_does_not_fit_gets_a_change_with_which_it_does(cli_here):
    arguments = ["--preset", "qwen7b-a6000", "--card", "t4"]
    page = cli_here("profile", *arguments, *FIXED).stdout.replace("\n", " ")
    second = page.partition("`train` refuses this run; --force overrides. With ")[2]
    settings = second.partition(" it fits; the group stays 32.")[0].split()
    assert settings[0] == "--set"
    keys = {setting.partition("=")[0] for setting in settings}
    kept = [one for one in FIXED if one.removeprefix("--set=").partition("=")[0] not in keys]
    assert answer(cli_here, *arguments, *kept, *settings)["verdict"]["memory"] == "fits"


def test_the_budget_is_the_named_one_then_the_preset_s_card(cli_here):
    assert answer(cli_here, "--preset", "qwen7b-a6000")["budget_bytes"] == CARDS["a6000"].offered_bytes
    assert answer(cli_here, "--preset", "qwen7b-a6000", "--card", "T4")["budget_bytes"] == CARDS["t4"].offered_bytes
    assert answer(cli_here, "--preset", "tiny-cpu", "--vram", "24GiB")["budget_bytes"] == 24 * GIB
    assert answer(cli_here, "--preset", "tiny-cpu")["step_seconds"] is None


@pytest.mark.parametrize(
    ("named", "preset"),
    [(("--card", "4090"), "qwen7b-24gb"), (("--vram", "16GiB"), "qwen1.5b-t4"), (("--card", "cpu"), "tiny-cpu")],
)
def test_without_a_preset_it_takes_the_one_for_the_named_card(cli_here, named, preset):
    assert f"\n{preset} on " in cli_here("profile", *named).stdout


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        ("adapter.use_rslora=true", "QLoRA of rank 16, 40,370,176 numbers learn"),
        ("adapter.use_dora=true", "QDoRA of rank 16, 41,760,768 numbers learn"),
        ("adapter.rank_pattern={q_proj=64}", "QLoRA of rank 16 (64 in q_proj), 50,003,968 numbers learn"),
        ("adapter.peft_type=tinylora", "TinyLoRA over 4-bit weights, 13 numbers learn"),
    ],
)
def test_it_says_what_learns(cli_here, setting, shown):
    assert shown in " ".join(cli_here("profile", "--preset=qwen7b-a6000", f"--set={setting}").stdout.split())


def test_a_rank_for_a_module_that_is_not_there_is_refused(cli_here):
    outcome = cli_here("profile", "--preset=qwen7b-a6000", "--set=adapter.rank_pattern={q_porj=64}")
    assert outcome.code == 2
    assert outcome.stderr.splitlines()[0].startswith("error: adapter.rank_pattern: 'q_porj' names no module")
    assert len(outcome.stderr.splitlines()) == 2


def test_a_config_file_that_is_a_preset_brings_its_card(cli_here, tmp_path):
    cli_here("presets", "copy", "qwen1.5b-t4", str(tmp_path / "mine.toml"))
    shown = answer(cli_here, "--config", str(tmp_path / "mine.toml"))
    assert shown["budget_bytes"] == CARDS["t4"].offered_bytes


def test_another_model_another_estimate(cli_here):
    sizes = [
        answer(cli_here, "--preset", "qwen7b-a6000", "--model", f"Qwen/Qwen2.5-{size}B")["phases"]["load"]
        for size in ("1.5", "7", "14")
    ]
    weights = [terms["4-bit weights"] for terms in sizes]
    assert weights == sorted(set(weights))


def test_the_page_says_whose_pass_rate_it_is_and_which_group_is_recommended(cli_here):
    page = cli_here("profile", "--preset", "qwen7b-a6000", "--pass-rate", "0.05").stdout
    assert "given pass rate 0.05 of boxed_answer" in page
    assert re.search(r"recommended group +16  16 if the pass rate is at most 0\.1 or at least 0\.9", page)


def test_the_page_says_how_rows_are_sampled_together(cli_here):
    def subject(*settings: str) -> str:
        return " ".join(cli_here("profile", "--preset", "qwen7b-a6000", *settings).stdout.split())

    assert "128 a wave, refilled, quantized weights," in subject(*FIXED)
    assert "128 a wave of generate," in subject(*FIXED, "--set=rollout.engine=generate")


def test_auto_is_chosen_for_the_card(cli_here):
    auto = ["--set", "memory.micro_batch=auto", "--set", "memory.rollout_rows=auto", "--preset", "qwen7b-a6000"]
    chosen = answer(cli_here, *auto)
    assert chosen["verdict"]["memory"] == "fits"
    assert 256 % chosen["plan"]["micro_batch"] == 0


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["--card", "a600"], "There is no card named 'a600'.", "Did you mean a6000"),
        (["--gpu", "t4"], "No such option: --gpu.", "Did you mean --card?"),
        (["--card", ""], "There is no card named ''.", "Known: "),
        (["--card", "t4", "--vram", "16GiB"], "--card 't4' and --vram '16GiB' contradict each other", "Give one"),
        (["--vram", "24"], "--vram '24' is not an amount of memory.", "Write a number and a unit"),
        (["--vram", "-3GiB"], "--vram '-3GiB' is not an amount of memory.", "Write a number and a unit"),
        (["--vram", "9" * 5000 + "GiB"], "--vram '99999", "Write a number and a unit"),
        (["--model", "Qwen2.5-7B-Instruc"], "There is no model named", "Did you mean Qwen/Qwen2.5-7B-Instruct"),
        (["--model", "./nowhere"], "There is no model directory './nowhere'.", "A hub name"),
        (["--set", "grpo.group_size=1"], "grpo.group_size = 1 (from --set)", "It takes an integer, at least 2"),
        (["--set", "grpo.max_completion_tokens=99999"], "grpo.max_prompt_tokens 384 + grpo", "grpo.max_completion"),
        (["--pass-rate", "1.5"], "The pass rate 1.5 is outside 0 to 1.", "Give a share"),
        (["--pass-rate", "nan"], "The pass rate nan is outside 0 to 1.", "Give a share"),
        (["--card", "t4", "--set", "model.dtype=bfloat16"], "model.dtype = 'bfloat16': Tesla T4 has no", "Set model"),
        (
            ["--score", "rows.json"],
            "Invalid value: --score excludes other options",
            "`lowmem-rl profile --help` shows how to use it",
        ),
        (["--pass-rate", "35%"], "--pass-rate '35%' is neither a number nor a file", "Give a share"),
    ],
)
def test_bad_input_is_two_lines_and_exit_code_2(cli_here, arguments, error, hint):
    outcome = cli_here("profile", "--preset", "qwen7b-a6000", *arguments)
    first, second = outcome.stderr.splitlines()
    assert first.startswith(f"error: {error}")
    assert second.startswith(f"hint: {hint}")
    assert (outcome.code, outcome.stdout) == (2, "")


def test_a_hub_model_that_nothing_here_knows_names_the_nearest(cli_here):
    outcome = cli_here("profile", "--preset", "qwen7b-a6000", "--model", "Qwen/Qwen2.5-7C")
    assert outcome.code == 3
    assert "Did you mean Qwen/Qwen2.5-7B" in outcome.stderr


@pytest.mark.parametrize("missing", ["vocab_size", "num_hidden_layers", "architectures"])
def test_a_config_json_without_a_field_is_refused(cli_here, tmp_path, missing):
    config = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_attention_heads": 4, "vocab_size": 320}
    config |= {"intermediate_size": 128, "num_hidden_layers": 2, "max_position_embeddings": 4096}
    write(tmp_path / "config.json", {name: value for name, value in config.items() if name != missing})
    outcome = cli_here("profile", "--preset", "tiny-cpu", "--model", str(tmp_path))
    assert (outcome.code, len(outcome.stderr.splitlines())) == (2, 2)


def test_an_architecture_without_formulas_is_said_and_widened(cli_here, tmp_path):
    config = {"architectures": ["LlamaForCausalLM"], "hidden_size": 2048, "num_attention_heads": 16, "vocab_size": 9999}
    config |= {"intermediate_size": 8192, "num_hidden_layers": 16, "max_position_embeddings": 4096}
    write(tmp_path / "config.json", config)
    run = ["--preset", "qwen7b-a6000", "--model", str(tmp_path), *FIXED, "--set=rollout.engine=generate"]
    known = answer(cli_here, *run)["peak_bytes"]
    write(tmp_path / "config.json", config | {"architectures": ["StrangeForCausalLM"]})
    strange = answer(cli_here, *run)["peak_bytes"]
    assert strange["expected"] == known["expected"]
    assert strange["upper"] > known["upper"]
    page = cli_here("profile", *run).stdout
    assert "StrangeForCausalLM is counted as a Llama" in page


def test_a_probe_s_file_decides_like_the_pass_rate_it_found(cli_here, tmp_path):
    examples = [{"example_id": str(i), "passed": i % 9, "samples": 8} for i in range(90)]
    file = write(tmp_path / "probe.json", {"examples": examples, "pass_rate": 0.5})
    shown = answer(cli_here, "--preset", "qwen7b-a6000", "--pass-rate", file)["group"]
    assert 0.8 < shown["informative_share"] < 0.95
    assert "measured pass rate 0.5" in cli_here("profile", "--preset", "qwen7b-a6000", "--pass-rate", file).stdout


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ([], "lists no examples"),
        ({"examples": []}, "lists no examples"),
        ({"examples": [{"passed": 1, "samples": 2}, 7]}, "example 2: samples is 'None'"),
        ({"examples": [{"passed": 9, "samples": 8}]}, "example 1: passed is '9', not an integer from 0 to 8"),
        ({"examples": [{"passed": True, "samples": 8}]}, "example 1: passed is 'True'"),
        ({"examples": [{"passed": 1, "samples": 10**30}]}, "example 1: samples is '1000"),
    ],
)
def test_a_file_that_no_probe_wrote_is_refused(cli_here, tmp_path, content, error):
    outcome = cli_here("profile", "--preset", "tiny-cpu", "--pass-rate", write(tmp_path / "probe.json", content))
    assert error in outcome.stderr.splitlines()[0]
    assert (outcome.code, len(outcome.stderr.splitlines())) == (2, 2)


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
@pytest.mark.parametrize("more", [[], ["--verbose"], ["--vram", "6GiB", "--pass-rate", "0.02"]])
@pytest.mark.parametrize("preset", PRESETS)
def test_the_page_fits_the_terminal_and_marks_the_peak_and_the_group(cli_here, monkeypatch, preset, more, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    page = cli_here("profile", "--preset", preset, *more).stdout
    assert max(map(len, page.splitlines())) <= columns
    assert "\x1b" not in page
    assert (page.count(" peak\n"), page.replace("\n    ", " ").count("<- this run")) == (1, 1)


def test_a_narrow_page_cuts_no_word(cli_here, monkeypatch):
    words = {}
    for columns in ("40", "120"):
        monkeypatch.setenv("COLUMNS", columns)
        words[columns] = set(re.findall(r"[\w.=/-]+", cli_here("profile", "--preset", "qwen7b-a6000").stdout))
    assert words["120"] - words["40"] == set()


@pytest.mark.parametrize("columns", ["40", "80"])
def test_a_change_of_several_settings_breaks_between_them_alone(cli_here, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    lines = cli_here("profile", "--preset", "qwen7b-t4", "--vram", "14GiB", *FIXED).stdout.splitlines()
    changes = [line for line in lines if "--set" in line]
    assert changes
    assert not [line for line in changes if line.endswith("--set")]


def test_colours_come_if_they_are_asked_for_and_change_no_word(cli_here, monkeypatch):
    plain = cli_here("profile", "--preset", "qwen7b-a6000").stdout
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("FORCE_COLOR", "1")
    coloured = cli_here("profile", "--preset", "qwen7b-a6000").stdout
    assert coloured.startswith("\x1b[1;32mFits")
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain


def test_a_terminal_without_block_characters_gets_other_bars(cli):
    outcome = cli("profile", "--preset", "qwen7b-a6000", PYTHONIOENCODING="ascii")
    assert outcome.stdout.isascii()
    assert re.search(r"rollout .* #+-+ +\| peak", outcome.stdout)


def test_a_bar_passes_the_edge_exactly_if_the_run_can(cli_here):
    page = cli_here("profile", "--preset", "qwen7b-a6000", "--vram", "14GiB", *FIXED).stdout
    bars = {line.split()[0]: line for line in page.splitlines() if "│" in line and line.startswith("  ")}
    beyond = {phase for phase, line in bars.items() if line.partition("│")[2].strip().strip("peak")}
    assert beyond == {"rollout"}


def test_code_named_in_a_config_file_is_no_hindrance_since_none_is_run(cli_here, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[rewards]\n"rewards.py:mine" = 1.0\n')
    assert cli_here("profile", "--preset", "tiny-cpu", "--config", str(file)).code == 0
    assert cli_here("train", "--dry-run", "--preset", "tiny-cpu", "--config", str(file)).code == 2


def test_a_request_puts_the_named_model_over_the_preset_s():
    composed = RunRequest("qwen7b-a6000", model="Qwen/Qwen2.5-14B").resolve()
    assert (composed.config.model.name, composed.origins["model.name"]) == ("Qwen/Qwen2.5-14B", "--model")


def test_score_prints_each_row_with_a_prediction_or_a_reason(cli_here, tmp_path):
    rows = [ROW, ROW | {"id": "b", "model": "nobody/knows"}, ROW | {"id": "c", "peak_allocated_bytes": None}]
    outcome = cli_here("profile", "--score", write(tmp_path / "rows.json", rows), "--json")
    shown = json.loads(outcome.stdout)
    assert shown.keys() == {"rows", "summary"}
    first, *others = shown["rows"]
    assert first["predicted"]["allocated"] > 4 * GIB
    assert ROW.keys() <= first.keys()
    assert [row["left_out"] for row in others] == ["the shape of nobody/knows is not known", "nothing was measured"]


def test_control_characters_of_a_row_do_not_reach_the_terminal(cli_here, tmp_path):
    rows = [ROW | {"id": "\x1b[31mred", "source": "\x1b]0;title\x07"}, ROW | {"id": "b", "left_out": "\x1b[2J"}]
    outcome = cli_here("profile", "--score", write(tmp_path / "rows.json", rows))
    assert outcome.code == 0
    assert "<U+001B>" in outcome.stdout
    assert not re.search("\x1b(?!\\[[0-9;]*m)|\x1b\\[31mred|\x07", outcome.stdout)


def test_score_shows_a_table_by_stack_card_and_source(cli_here, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    rows = [ROW, ROW | {"id": "b", "model": "nobody/knows"}, ROW | {"id": "oom", "gpu": "T4", "oom": True}]
    outcome = cli_here("profile", "--score", write(tmp_path / "rows.json", rows))
    assert (outcome.code, outcome.stderr) == (0, "")
    page = outcome.stdout
    assert max(map(len, page.splitlines())) <= 80
    assert page.startswith("2 of 3 rows are scored; mean error: allocated ")
    for cell in ("trl sft qlora", "a100-80", "example.org", "the shape of nobody/knows is not known (1): b"):
        assert f"  {cell}" in page
    monkeypatch.setenv("COLUMNS", "40")
    narrow = cli_here("profile", "--score", str(tmp_path / "rows.json")).stdout
    assert max(map(len, narrow.splitlines())) <= 40
    assert set(re.findall(r"\d[\d.]*", page)) <= set(re.findall(r"\d[\d.]*", narrow))


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ([ROW, ROW | {"micro_batch": 0}], "rows.json, row 2: micro_batch is 0"),
        ([{name: value for name, value in ROW.items() if name != "stack"}], "rows.json, row 1: stack is missing"),
        ([ROW | {"stack": "jax"}], "rows.json, row 1: stack is 'jax'"),
        ({"rows": []}, "holds dict, not a list"),
        ("nothing", "cannot be read as JSON"),
    ],
)
def test_rows_in_another_schema_name_row_and_field(cli_here, tmp_path, content, error):
    outcome = cli_here("profile", "--score", write(tmp_path / "rows.json", content))
    assert error in outcome.stderr
    assert (outcome.code, outcome.stdout, len(outcome.stderr.splitlines())) == (2, "", 2)


def test_shares_are_0_or_100_per_cent_only_if_they_are():
    assert [percent(share) for share in (0, 0.0004, 0.05, 0.5, 0.999, 1)] == [
        "0 %",
        "<0.1 %",
        "5.0 %",
        "50 %",
        ">99 %",
        "100 %",
    ]


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(14, 24, "14 to 24 s"), (0.5, 1.5, "0.5 to 1.5 s"), (314, 509, "5.2 to 8.5 min"), (33515, 54146, "9.3 to 15.0 h")],
)
def test_a_range_of_time_has_the_unit_of_its_end(low, high, text):
    assert span(SecondsRange(low, high)) == text


@pytest.mark.slow
def test_every_catalogued_model_can_be_profiled(cli_here):
    for name, shape in CATALOGUE.items():
        short = shape.max_positions // 4
        lengths = [f"grpo.max_prompt_tokens={short}", f"grpo.max_completion_tokens={min(short, 1024)}"]
        settings = [part for setting in lengths for part in ("--set", setting)]
        shown = answer(cli_here, "--preset", "qwen7b-a6000", "--model", name, *settings)
        assert shown["peak_bytes"]["expected"] > 0.5 * shape.num_params
