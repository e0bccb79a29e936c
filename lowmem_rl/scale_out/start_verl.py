"""Starts verl with the overrides in a folder that `scale-out --to verl` has written; run.sh calls it."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lowmem_rl.scale_out.hydra_text import overrides
from lowmem_rl.scale_out.verl_files import placed


def arguments_of(folder: Path, further: Sequence[str] = ()) -> list[str]:
    """Returns the arguments of `verl.trainer.main_ppo`; `further` overrides come last, so that they count.

    The places of files are those of this moment: the folder may have been written on another machine.
    """
    import yaml

    written = yaml.safe_load((folder / "overrides.yaml").read_text("utf-8"))
    places = placed(folder.resolve(), has_adapter=(folder / "adapter").is_dir())
    return [*map(str, written), *overrides(places), *further]


if __name__ == "__main__":
    command = [sys.executable, "-m", "verl.trainer.main_ppo", *arguments_of(Path(sys.argv[1]), sys.argv[2:])]
    os.execv(sys.executable, command)
