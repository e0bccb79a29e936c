import html
import json
import signal
import urllib.request

import pytest

from lowmem_rl.storage.run_dir import read_json, write_json
from tests.run_maker import make_run


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", hostile=True)


def test_report_writes_the_page_and_prints_its_path(cli_here, run, tmp_path):
    assert cli_here("report", str(run)).stdout == f"{run / 'report.html'}\n"
    assert cli_here("report", str(run), "--out", "page.html").stdout == "page.html\n"
    assert (tmp_path / "page.html").read_text("utf-8") == (run / "report.html").read_text("utf-8")


def test_report_draws_a_slide(cli_here, run):
    assert cli_here("report", str(run), "--png").code == 0
    assert (run / "report.png").stat().st_size > 10_000


@pytest.mark.parametrize("command", ["report", "samples", "compare"])
def test_a_folder_without_a_run_is_two_lines_and_exit_code_7(cli_here, tmp_path, run, command):
    paths = [str(tmp_path), str(run)][: 2 if command == "compare" else 1]
    code, stdout, stderr = cli_here(command, *paths)
    assert (code, stdout, len(stderr.splitlines())) == (7, "", 2)


def test_compare_names_the_better_run_and_what_differs(cli_here, tmp_path):
    runs = [make_run(tmp_path / "low", right=(4, 6)), make_run(tmp_path / "high", right=(4, 18), grpo__beta=0.1)]
    shown = cli_here("compare", *map(str, runs)).stdout
    assert "high against low: better" in shown
    assert "12 items won, 0 lost of 20" in shown
    assert "grpo.beta" in shown
    assert "grpo.group_size" not in shown


def test_control_characters_of_a_run_are_spelled_out_in_an_error(cli_here, tmp_path):
    runs = [make_run(tmp_path / "one"), make_run(tmp_path / "other", task__name="\x1b[2J\u202etask")]
    code, stdout, stderr = cli_here("compare", *map(str, runs))
    assert (code, stdout, len(stderr.splitlines())) == (7, "", 2)
    assert "<U+001B>[2J<U+202E>task" in stderr


def test_control_characters_of_an_evaluation_are_spelled_out_on_terminal_and_page(cli_here, tmp_path):
    runs = [make_run(tmp_path / name) for name in ("one", "other")]
    for run in runs:
        shown = read_json(run / "eval.json")
        hostile = {
            name: shown[name] | {"task": "\x1b[2J\u202etask", "num_examples": "\x07"} for name in ("before", "after")
        }
        write_json(run / "eval.json", shown | hostile)
    compared = cli_here("compare", *map(str, runs))
    cli_here("report", str(runs[0]))
    for text in (compared.stdout, (runs[0] / "report.html").read_text("utf-8")):
        assert "<U+202E>task" in html.unescape(text)
        assert not set("\x1b\x07\u202e") & set(text)


def test_a_reader_that_has_left_is_no_failure(run, started):
    process = started("samples", str(run))
    process.stdout.close()
    talk = process.stderr.read()
    assert (process.wait(timeout=60), talk) == (0, "")


def test_compare_names_runs_that_are_not_distinguishable(cli_here, tmp_path):
    runs = [make_run(tmp_path / name, right=(4, right)) for name, right in (("a", 12), ("b", 14), ("c", 13))]
    shown = cli_here("compare", *map(str, runs)).stdout
    assert shown.count("not distinguishable") == 2
    assert "adjusted for 2 comparisons" in shown
    assert json.loads(cli_here("compare", *map(str, runs), "--json").stdout)["config"] == {}


def test_samples_shows_hostile_text_as_text(cli_here, run):
    shown = cli_here("samples", str(run), "--limit", "8").stdout
    assert "<script>" in shown
    assert "<U+001B>[2J" in shown
    assert not set("\x1b\x07\x9b\u202e\u2066") & set(shown)
    assert len(shown) < 100_000


def test_samples_are_filtered_and_counted(cli_here, run):
    few = cli_here("samples", str(run), "--score", "reward>=0.5", "--limit", "1")
    assert few.stdout.count("reward ") == 1
    assert few.stderr == "1 of 4 samples; --limit shows more.\n"
    assert cli_here("samples", str(run), "--step", "1").stdout == "No sample matches.\n"
    assert [row["truncated"] for row in json.loads(cli_here("samples", str(run), "--truncated", "--json").stdout)] == [
        True
    ]


@pytest.mark.parametrize("columns", [40, 100])
def test_samples_are_side_by_side_if_there_is_room(cli_here, tmp_path, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = cli_here("samples", str(make_run(tmp_path / "tame")), "--side-by-side").stdout
    side_by_side = [line for line in shown.splitlines() if "boxed{4}" in line and "boxed{0}" in line]
    assert len(side_by_side) == (1 if columns == 100 else 0)
    assert max(map(len, shown.splitlines())) <= columns


def test_a_run_is_followed_until_ctrl_c_which_is_no_failure(tmp_path, started):
    process = started("report", str(tmp_path), "--follow", PYTHONUNBUFFERED="1")
    address = process.stdout.readline().strip()
    assert "The run has not begun" in urllib.request.urlopen(address, timeout=10).read().decode()
    process.send_signal(signal.SIGINT)
    _, talk = process.communicate(timeout=20)
    assert (process.returncode, talk) == (0, "Open it in a browser on this machine; Ctrl-C ends it.\n")


@pytest.mark.parametrize("options", [["--port=8000"], ["--follow", "--png"], ["--follow", "--out=page.html"]])
def test_following_goes_with_its_own_options_alone(cli_here, run, options):
    code, stdout, stderr = cli_here("report", str(run), *options)
    assert (code, stdout, len(stderr.splitlines())) == (2, "", 2)


def test_a_killed_run_is_audited_when_it_is_reported(cli_here, tmp_path):
    run = make_run(tmp_path / "run")
    assert not (run / "health.json").exists()
    cli_here("report", str(run))
    assert 'id="health"' in (run / "report.html").read_text("utf-8")
    assert not (run / "health.json").exists()


def test_a_comparison_is_a_page_too(cli_here, tmp_path):
    runs = [make_run(tmp_path / name, right=(4, right)) for name, right in (("low", 6), ("<b>high", 18))]
    assert cli_here("compare", *map(str, runs), "--out=both.html").stdout == "both.html\n"
    page = (tmp_path / "both.html").read_text("utf-8")
    assert "Better than low: &lt;b&gt;high" in page
    charts = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert {chart["along"] for chart in charts} == {"step", "tokens", "minutes"}
    assert [series["label"] for series in charts[0]["series"]] == ["low", "<b>high"]
