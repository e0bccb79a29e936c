"""Does each export answer like the model it was made from? Exports a run in every form that is proven here.

    .venv/bin/lowmem-rl train --preset tiny-cpu --out runs/demo
    .venv/bin/python -m benchmarks.export_proofs runs/demo --out benchmarks/records/export.json

Exports are written into a temporary folder; the record has their proofs, or why they were refused.
"""

import argparse
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from lowmem_rl.engine.device import device_on
from lowmem_rl.engine.trained_model import config_of, find_trained_adapter
from lowmem_rl.errors import LowMemError
from lowmem_rl.export.export import export
from lowmem_rl.models.hardware import this_machine
from lowmem_rl.storage.run_dir import write_json
from lowmem_rl.telemetry.environment import environment_record

FORMS = (("adapter", None), ("merged", None), ("merged", "16bit"))


def main() -> None:
    """Writes the record."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        proofs = [proof(options.run, to, base, Path(folder)) for to, base in FORMS]
    machine = this_machine()
    here = environment_record(machine, device_on(machine, config_of(find_trained_adapter(options.run).run)))
    command = f"python -m benchmarks.export_proofs {options.run} --out {options.out}"
    write_json(options.out, {"date": date.today().isoformat(), "command": command, "machine": here, "exports": proofs})


def proof(run: Path, to: str, base: str | None, folder: Path) -> dict[str, Any]:
    """Returns the proof of an export, or why it was refused."""
    about = {"to": to, "base": base}
    try:
        made = export(run, to, base=base, out=folder / f"{to}-{base}")
    except LowMemError as error:
        return about | {"refused": str(error)}
    return about | {"what": made.form.what, **made.proof.to_json()}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/records/export.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
