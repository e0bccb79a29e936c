import json

from lowmem_rl.signal.pass_rate import measured
from lowmem_rl.signal.signal_report import signal_report


def test_a_probe_counts_each_example_and_says_what_its_groups_would_carry(cli_here, tmp_path) -> None:
    out = tmp_path / "probe.json"
    outcome = cli_here("probe", "--preset=tiny-cpu", "--examples=16", "--samples=8", f"--out={out}", "--json")
    assert outcome.code == 0, outcome.stderr
    printed, written = json.loads(outcome.stdout), json.loads(out.read_text())
    assert written == {key: printed[key] for key in written}
    counts = [(row["passed"], row["samples"]) for row in written["examples"]]
    assert len(counts) == 16
    assert sum(passed for passed, _ in counts) / (16 * 8) == written["pass_rate"]
    # The embedded model works in three of ten completions, and is right when it works.
    assert 0.1 < written["interval"]["low"] < written["pass_rate"] < written["interval"]["high"] < 0.6
    assert printed["group"]["informative_share"] == signal_report(8, 8, measured(counts)).informative_share


def test_the_same_seed_probes_the_same_and_the_page_ends_with_commands_that_take_the_counts(cli_here, tmp_path) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    pages = [
        cli_here("probe", "--preset=tiny-cpu", "--examples=4", "--samples=4", f"--out={file}").stdout for file in files
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
    *_, profile, train = pages[0].splitlines()
    assert profile.split() == ["lowmem-rl", "profile", "--preset", "tiny-cpu", "--pass-rate", str(files[0])]
    assert "measured pass rate" in cli_here(*profile.split()[1:]).stdout
    assert cli_here(*train.split()[1:], "--dry-run").code == 0


def test_a_probe_of_what_is_not_there_is_refused_before_loading(cli_here) -> None:
    assert cli_here("probe", "--preset=tiny-cpu", "--task=arithmetik").code == 2
    assert cli_here("probe", "--preset=qwen7b-a6000").code == 3
