"""Starts verl with the overrides in a folder that `scale-out --to verl` has written; run.sh calls it."""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lowmem_rl.errors import LowMemError, RunDirError, SetupError
from lowmem_rl.reports.escape import shown
from lowmem_rl.scale_out.hydra_text import overrides
from lowmem_rl.scale_out.place import why_not_found
from lowmem_rl.scale_out.verl_files import placed

_WRITTEN_FOR = "0.9."
"""verl renames keys from one minor version to the next: in 0.9 those of rewards."""


def arguments_of(folder: Path, further: Sequence[str] = ()) -> list[str]:
    """Returns the arguments of `verl.trainer.main_ppo`; `further` overrides come last, so that they count.

    The places of files are those of this moment: the folder may have been written on another machine. Raises
    `RunDirError` if the folder has no list of overrides, or a path that verl reads as something else.
    """
    import yaml

    path = folder / "overrides.yaml"
    try:
        written = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunDirError(f"{path} cannot be read: {error}.", hint="`lowmem-rl scale-out` writes it.") from error
    if not isinstance(written, list):
        raise RunDirError(f"{path} is no list of overrides.", hint="A line of it is: - KEY=VALUE")
    whole = folder.resolve()
    if reason := why_not_found(str(whole), "verl"):
        raise RunDirError(f"{str(whole)!r} cannot be used: {reason}.", hint="Rename the folder.")
    places = placed(whole, has_adapter=(folder / "adapter").is_dir())
    return [*map(str, written), *overrides(places), *further]


def check_version() -> None:
    """Raises `SetupError` if verl is not installed, or is another version than the overrides are written for."""
    hint = "pip install 'verl[vllm]>=0.9,<0.10' flash-attn"
    try:
        found = version("verl")
    except PackageNotFoundError as error:
        raise SetupError("verl is not installed here.", hint=hint) from error
    if not found.startswith(_WRITTEN_FOR):
        raise SetupError(f"verl is {found} here, and the overrides are for {_WRITTEN_FOR}x.", hint=hint)


def main(arguments: Sequence[str]) -> int:
    """Becomes verl's process; returns an exit code if that cannot be."""
    try:
        command = [sys.executable, "-m", "verl.trainer.main_ppo", *arguments_of(Path(arguments[0]), arguments[1:])]
        check_version()
    except LowMemError as error:
        sys.stderr.write(f"error: {shown(error)}\nhint: {shown(error.hint)}\n")
        return error.exit_code
    return os.execv(sys.executable, command)  # it does not come back


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
