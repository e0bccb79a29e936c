"""Exit codes and hints."""

from lowmem_rl import errors
from lowmem_rl.errors import LowMemError, UnknownName, near_names


def test_every_error_has_the_exit_code_of_its_kind() -> None:
    kinds = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    codes = {name: kind.exit_code for name, kind in kinds.items() if issubclass(kind, LowMemError)}
    assert codes == {
        "LowMemError": 1,
        "ConfigError": 2,
        "UnknownName": 2,
        "SetupError": 3,
        "DoesNotFit": 4,
        "TrainingError": 5,
        "TaskError": 6,
        "RewardError": 6,
        "RunDirError": 7,
        "NoSignal": 8,
        "Interrupted": 130,
    }


def test_an_error_carries_its_message_and_its_hint_separately() -> None:
    error = LowMemError("what and where", hint="the fix")
    assert (str(error), error.hint) == ("what and where", "the fix")


def test_near_names_are_offered_and_else_all_of_them() -> None:
    assert near_names("gsm8", ["gsm8k", "arithmetic"]) == "Did you mean gsm8k?"
    assert near_names("a100", ["a10g", "a100-40", "h100", "a100-80"]) == "Did you mean a100-40 or a100-80?"
    assert near_names("zzz", ["b", "a"]) == "Known: a, b."
    assert near_names("zzz", []) == ""


def test_an_unknown_name_says_what_it_is_no_name_of() -> None:
    assert str(UnknownName("task", "gsm9k", ["gsm8k"])) == "There is no task named 'gsm9k'."
