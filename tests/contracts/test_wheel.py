"""The wheel, built from the sdist and installed alone, works from another directory."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from the unpacked sdist of this checkout."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", out, cwd=ROOT)
    (sdist,) = out.glob("*.tar.gz")
    run("tar", "-xf", sdist, cwd=out)
    source = out / sdist.name.removesuffix(".tar.gz")
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", out, cwd=source)
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The bin folder of a new environment: the wheel first, then the packages of this one."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, with_pip=False)
    uv = shutil.which("uv", path=f"{os.environ['PATH']}{os.pathsep}{ROOT / '.tools/uv/bin'}")
    assert uv, "`make test` installs uv if it is missing"
    run(uv, "pip", "install", "--offline", "--no-index", "--no-deps", "--python", home, wheel, cwd=home)
    # The dependencies are borrowed; a .pth adds a folder without reading the .pth of this checkout in it.
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return home / "bin"


def test_the_wheel_holds_the_three_packages_and_their_data_alone(wheel):
    names = ZipFile(wheel).namelist()
    rooms = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert rooms == {"lowmem_rl", "lowmem_rl_bench", "lowmem_rl_cli"}
    for source, shipped in (
        ("presets", "lowmem_rl/_presets"),
        ("lowmem_rl/_assets", "lowmem_rl/_assets"),
        ("lowmem_rl/reports", "lowmem_rl/reports"),
        ("lowmem_rl/scale_out", "lowmem_rl/scale_out"),
        ("benchmarks/records/prove", "lowmem_rl_bench/_records"),
    ):
        expected = {
            f"{shipped}/{p.relative_to(ROOT / source)}"
            for p in (ROOT / source).rglob("*")
            if p.is_file() and "__pycache__" not in p.parts
        }
        assert expected
        assert expected <= set(names)


@pytest.mark.parametrize(("command", "shown"), [("--help", "Usage: lowmem-rl"), ("presets list", "tiny-cpu")])
def test_the_installed_command_works_anywhere(installed, tmp_path, command, shown):
    assert shown in run(installed / "lowmem-rl", *command.split(), cwd=tmp_path)


def test_the_installed_package_comes_from_the_wheel_and_loads_no_torch(installed, tmp_path):
    program = "import sys, lowmem_rl, lowmem_rl_cli.app; print(lowmem_rl.__file__, 'torch' in sys.modules)"
    shown = run(installed / "python", "-c", program, cwd=tmp_path)
    assert shown.startswith(str(installed.parent))
    assert shown.endswith(" False\n")


def test_no_module_called_cli_is_installed(installed, tmp_path):
    program = "from importlib.util import find_spec; print(find_spec('cli'))"
    assert run(installed / "python", "-c", program, cwd=tmp_path) == "None\n"
