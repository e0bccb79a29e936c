import html
import json
import re
import shlex
import shutil
import time
from dataclasses import asdict
from html.parser import HTMLParser

import pytest

from lowmem_rl.config.compose import resolve
from lowmem_rl.errors import RunDirError
from lowmem_rl.reports.html import render, write_report
from lowmem_rl.reports.png import write_slide
from lowmem_rl.reports.run_record import read_record
from lowmem_rl.reports.sections.reproduce import command_of
from lowmem_rl.reports.sections.results import tables_of
from lowmem_rl.reports.sections.times import time_of
from lowmem_rl.reports.sections.verdict import verdict_of
from lowmem_rl.stats import compare_paired
from lowmem_rl.storage.run_dir import RunDir, append_row, read_json, write_json
from lowmem_rl.units import GIB
from tests.run_maker import begin, make_run, metric_row

AUDIT = {
    "step": 20,
    "findings": [
        {
            "name": "truncation_wall",
            "severity": "critical",
            "steps": [3, 20],
            "confidence": 0.9,
            "what": "Cut off.",
            "cure": "Raise <b>it</b>.",
        }
    ],
    "not_judged": {"kl_blowup": "steps with kl"},
}
SECTIONS = ["run", "curves", "results", "memory", "time", "prompts", "samples", "reproduce"]


class Page(HTMLParser):
    """The tags of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def sections(self) -> list[str | None]:
        return [section["id"] for section in self.of("section")]

    @property
    def charts(self) -> list:
        return json.loads(re.findall(r'id="data">(.*?)</script>', self.text)[0])


def page_of(path) -> Page:
    return Page(write_report(path).read_text("utf-8"))


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def test_the_page_starts_with_the_verdict_and_has_every_section(run) -> None:
    page = page_of(run)
    assert page.sections == SECTIONS
    assert page.text.index("It learned") < page.text.index('id="run"')
    assert [chart["title"] for chart in page.charts][:3] == ["Accuracy", "Reward", "Informative groups"]


def test_the_page_makes_no_requests(run) -> None:
    page = page_of(run)
    (policy,) = [meta["content"] for meta in page.of("meta") if meta.get("http-equiv")]
    assert policy.startswith("default-src 'none';")
    assert not {"link", "img", "iframe", "object", "embed", "base", "form", "a"} & {tag for tag, _ in page.tags}
    assert not [attributes for _, attributes in page.tags if {"src", "href", "style", "onclick"} & attributes.keys()]
    # The one address in the page is the chart library's name for itself, in a comment.
    assert set(re.findall(r"https?://[^\s\"'<>]+", page.text)) == {"https://github.com/leeoniya/uPlot"}


def test_hostile_text_makes_no_tag_and_is_made_visible(tmp_path) -> None:
    tame, hostile = page_of(make_run(tmp_path / "tame")), page_of(make_run(tmp_path / "<b>run</b>", hostile=True))
    assert {tag for tag, _ in hostile.tags} <= {tag for tag, _ in tame.tags} | {"mark"}
    assert len(hostile.of("script")) == 2
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\u2066]", hostile.text)
    assert "<U+202E>" in html.unescape(hostile.text)
    assert "{{ 7 * 7 }}" in html.unescape(hostile.text)
    assert len(hostile.text) < 300_000


def test_hostile_names_in_the_charts_stay_data(run) -> None:
    append_row(RunDir(run).metrics, metric_row(21, 20) | {"scores/</script><script>alert(1)</script>": 1.0})
    page = page_of(run)
    assert len(page.of("script")) == 2
    assert any("</script>" in series["label"] for series in page.charts[1]["series"])


def test_a_long_run_stays_small_and_is_written_fast(tmp_path) -> None:
    path = make_run(tmp_path / "run", steps=3000)
    began = time.thread_time()
    page = page_of(path)
    assert time.thread_time() - began < 3
    assert len(page.text) < 3_000_000
    assert page.charts[1]["xs"][0] == 1
    assert page.charts[1]["xs"][-1] == 3000


@pytest.mark.parametrize(
    ("missing", "section"),
    [("estimate.json", "memory"), ("metrics.jsonl", "curves"), ("samples.jsonl", "samples"), ("eval", "prompts")],
)
def test_a_section_without_its_file_is_left_out(run, missing, section) -> None:
    shutil.rmtree(run / missing) if missing == "eval" else (run / missing).unlink()
    if missing == "metrics.jsonl":
        (run / "eval.json").unlink()
    assert section not in page_of(run).sections


@pytest.mark.slow
def test_there_is_a_page_for_every_subset_of_a_runs_files(tmp_path) -> None:
    whole = make_run(tmp_path / "whole")
    files = ["machine.json", "estimate.json", "metrics.jsonl", "samples.jsonl", "eval.json", "eval"]
    for kept in range(2 ** len(files)):
        path = tmp_path / str(kept)
        absent = [name for number, name in enumerate(files) if not kept >> number & 1]
        shutil.copytree(whole, path, ignore=shutil.ignore_patterns(*absent))
        assert {"run", "reproduce"} <= set(page_of(path).sections)


def test_a_run_that_ended_before_its_first_step_has_a_page(tmp_path) -> None:
    run = RunDir(tmp_path / "run")
    begin(run, {})
    page = page_of(run.path)
    assert page.sections == ["run", "memory", "time", "reproduce"]
    assert "No step of training is recorded." in page.text


def test_a_run_that_crashed_half_way_says_so(run) -> None:
    written = read_json(run / "eval.json")
    write_json(run / "eval.json", {"before": written["before"], "during": [written["after"] | {"step": 10}]})
    (run / "eval" / "after.jsonl").rename(run / "eval" / "step-000010.jsonl")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 21, "rew')
    page = page_of(run)
    assert "It learned by step 10" in page.text
    assert "still running, or was killed" in page.text


def test_a_run_that_ended_early_by_itself_says_so(run) -> None:
    write_json(run / "eval.json", {"before": read_json(run / "eval.json")["before"]})
    write_json(run / "health.json", AUDIT)
    page = page_of(run)
    assert "Whether it learned is unknown" in page.text
    assert "ended at step 20" in page.text


def test_what_the_audit_found_is_shown_and_named_in_the_verdict(run) -> None:
    assert "health" not in page_of(run).sections
    write_json(run / "health.json", AUDIT)
    page = page_of(run)
    assert page.text.count("truncation_wall") == 2
    assert "Raise &lt;b&gt;it" in page.text
    assert page.of("li")[0]["class"] == "critical"


def test_measured_memory_is_next_to_predicted_only_if_it_was_measured(run) -> None:
    assert "Phases were not measured separately" in page_of(run).text
    phases = {"rollout": {"process_bytes": GIB // 4}}
    write_json(run / "peak.json", {"peak_bytes": GIB, "phases": phases, "metered_step": {"completion_tokens": 420}})
    text = page_of(run).text
    assert text.count('<span class="label">measured </span>0.25 GiB') == 1
    assert text.count(">not measured</span>") == 1
    assert "420 of 512 tokens in the longest completion" in text


def test_resumes_and_steps_without_memory_are_shown(run) -> None:
    append_row(RunDir(run).path / "resumes.jsonl", {"step": 7, "seconds": 1.5})
    append_row(RunDir(run).path / "recoveries.jsonl", {"step": 9, "phase": "backward", "rows": 8})
    text = page_of(run).text
    assert "<dt>resumed after step</dt><dd>7</dd>" in text
    assert "<dt>out of memory in step</dt><dd>9 (backward)</dd>" in text


def test_time_is_shown_by_phase_with_evaluations_separate(run) -> None:
    parts = {part.name: part.share for part in time_of(read_record(run)).parts}
    assert parts["rollout"] == "47.6 %"  # 20 of 40 s of training and 2 s of evaluations
    assert parts["evaluation"] == "4.8 %"
    assert float(parts["optimizer"].split()[0]) == 0


def test_further_results_are_shown_if_there_are_any(run) -> None:
    written = read_json(run / "eval.json")
    whole = {"low": 0.25, "high": 0.75}
    more = {
        "pass_at_k": {"1": 0.5, "4": 0.75, "²": 0.5, "9" * 5000: 0.5},
        "pass_at_k_intervals": {"4": whole},
        "by_level": {level: {"num_examples": 9, "pass_at_1": 0.5, "pass_at_1_interval": whole} for level in "12"},
    }
    paired = {"gain": -0.25, "interval": {"low": -0.4, "high": -0.1}, "p_value": 0.01, "won": 0, "lost": 5}
    other = {
        "before": written["before"],
        "after": written["after"],
        "comparison": {"paired": paired | {"num_items": 20}},
    }
    best = {"step": 10, "pass_at_1": 0.9, "num_examples": 20, "note": "the highest of several"}
    after = written["after"] | more
    later = [after | {"name": "later-best", "target": f"{run}/best", "step": 10, "task": "gsm8k"}]
    parts = {"after": after, "out_of_domain": {"gsm8k": other}, "best": best, "later": later}
    write_json(run / "eval.json", written | parts)
    make_run(run / "controls" / "random", right=(4, 5))
    record = read_record(run)
    titles = [table.title for table in tables_of(record)]
    assert titles == ["Before and after", "By level", "Several samples", "Other tasks", "Evaluated later", "Controls"]
    text = html.unescape(page_of(run).text)
    for said in (
        "The best was step 10",
        "On gsm8k, which it was not trained on: -25.0 points",
        "75.0\xa0% [25.0\xa0%",
        "pass@4",
    ):
        assert said in text
    assert page_of(run).charts[-1]["xs"] == [1, 4]


@pytest.mark.parametrize("wrong", [None, True, "x", [], {"low": "x"}, 1e308, 10**400, [1]])
def test_any_content_of_a_file_gives_a_page_or_a_users_error(run, wrong) -> None:
    write_json(run / "health.json", AUDIT)
    write_json(run / "controls.json", {"controls": [], "words": []})
    for name in ("config", "machine", "estimate", "health", "eval", "controls"):
        path = run / f"{name}.json"
        whole = read_json(path)
        for key in whole:
            write_json(path, whole | {key: wrong})
            assert "NaN" not in render(read_record(run))
        write_json(path, whole)
    append_row(RunDir(run).samples, {"step": wrong, "completion": wrong, "reward": wrong})
    with pytest.raises(RunDirError, match=r"samples\.jsonl, line 9"):
        read_record(run)


def test_differences_between_completions_are_marked(run) -> None:
    page = page_of(run)
    assert "<mark>20</mark>" in page.text
    assert "became right" in page.text


@pytest.mark.parametrize(("wins", "is_doubted"), [(1, True), (12, False)])
def test_a_gain_that_a_control_has_too_is_doubted_in_the_verdict(tmp_path, wins, is_doubted) -> None:
    run = make_run(tmp_path / "run", right=(4, 18))
    beyond = asdict(compare_paired([False] * 20, [True] * wins + [False] * (20 - wins)))
    write_json(RunDir(run).controls, {"controls": [{"name": "random", "beyond": beyond}]})
    assert ("Its random control is not distinguishable from it" in verdict_of(read_record(run)).paragraph) == is_doubted


@pytest.mark.parametrize(
    ("right", "strict", "said"),
    [
        ((4, 16), None, "It learned"),
        ((16, 4), None, "It got worse"),
        ((8, 9), None, "No significant difference"),
        ((8, 9), (0, 9), "most of that is the format"),
    ],
)
def test_the_verdict_says_what_the_items_show(tmp_path, right, strict, said) -> None:
    assert said in page_of(make_run(tmp_path / "run", right=right, strict=strict)).text


def test_evaluations_whose_items_are_missing_are_shown_without_a_test(run) -> None:
    (run / "eval" / "after.jsonl").unlink()
    verdict = verdict_of(read_record(run))
    assert verdict.headline == "Whether it learned is unknown"
    assert (
        "20.0 % were right before training and 80.0 % at step 20; the difference cannot be tested" in verdict.paragraph
    )


def test_a_better_evaluation_during_training_is_named(run) -> None:
    written = read_json(run / "eval.json")
    shutil.copy(run / "eval" / "after.jsonl", run / "eval" / "step-000010.jsonl")
    shutil.copy(run / "eval" / "before.jsonl", run / "eval" / "after.jsonl")
    after = written["after"] | {"pass_at_1": 0.2}
    write_json(run / "eval.json", written | {"during": [written["after"] | {"step": 10}], "after": after})
    assert "At step 10 it was better" in page_of(run).text


def test_a_damaged_file_is_named(run) -> None:
    (run / "estimate.json").write_text("[]")
    with pytest.raises(RunDirError, match=r"estimate\.json"):
        write_report(run)


@pytest.mark.slow
def test_a_place_that_cannot_be_written_is_an_error_of_the_user(run, tmp_path) -> None:
    for write in (write_report, write_slide):
        with pytest.raises(RunDirError, match="cannot be written"):
            write(run, tmp_path)


def test_the_command_makes_the_same_configuration_again(tmp_path) -> None:
    ranks = 'adapter.rank_pattern={q_proj=8, "layers.(0|1).mlp.up_proj"=4}'
    composed = resolve(preset="tiny-cpu", settings=["optimizer.learning_rate=0.25", "grpo.loss=grpo", "seed=7", ranks])
    run = RunDir(tmp_path / "run")
    config = composed.config.model_dump()
    write_json(run.config, {"preset": "tiny-cpu", "config": config, "origins": dict(composed.origins)})
    program, verb, *words = shlex.split(command_of(read_record(run.path)))
    assert (program, verb) == ("lowmem-rl", "train")
    assert words[:2] == ["--preset", "tiny-cpu"]
    assert resolve(preset="tiny-cpu", settings=words[3::2]).config == composed.config


def test_a_preset_that_only_the_user_has_is_written_out(run) -> None:
    written = read_json(run / "config.json")
    write_json(run / "config.json", written | {"preset": "mine"})
    command = command_of(read_record(run))
    assert "mine" not in command
    assert "grpo.group_size=" in command
    assert "--reward boxed_answer=" in command


def test_a_slide_is_a_picture(run) -> None:
    assert write_slide(run).read_bytes().startswith(b"\x89PNG")
