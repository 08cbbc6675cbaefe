"""The wheel holds one top-level name, and the command works from it and from a checkout alike."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import planner

ROOT = Path(__file__).parents[1]
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
OFFLINE = ["--no-deps", "--no-index", "--no-build-isolation"]


def run(*command, cwd, **extra):
    """Run a command outside the repository and return its output."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**environment, **extra},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the sources, so that building leaves nothing in the repository."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "README.md", "LICENSE", "cli.py"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("planner", "templates", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    return folder


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(*PIP, "wheel", *OFFLINE, "--wheel-dir", folder, checkout, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def environment(folder):
    """A virtual environment that sees the dependencies of this one, and no ``planner``."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    place = run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder
    ).strip()
    (Path(place) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_no_install_looks_the_project_up_in_an_index():
    """Its names may mean something else there: pip gets its path."""
    metadata = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert metadata.count("npas-planner") == 1  # the name itself, and no requirement
    for file in ("Makefile", "README.md"):
        installs = re.findall(r"(?:pip|PIP\)) install(.*?)[`\n]", (ROOT / file).read_text("utf-8"))
        assert installs
        for options in installs:
            assert "./" in options or options == " $(TORCH)"


def test_wheel_has_one_top_level_name(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"planner"}


def test_wheel_has_every_module_and_template(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "planner").rglob("*.py")}
    templates = {f"planner/templates/{path.name}" for path in (ROOT / "templates").iterdir()}
    assert modules | templates | {"planner/app/cli.py", "planner/py.typed"} <= names


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_command_works_outside_the_repository(kind, wheel, checkout, tmp_path):
    python = environment(tmp_path / "venv")
    source = ["--editable", checkout] if kind == "editable" else [wheel]
    run(*PIP, "--python", python, "install", *OFFLINE, *source, cwd=tmp_path)
    npas = python.with_name("npas")
    for command in ([npas], [python, "-m", "planner"]):
        assert run(*command, "--version", cwd=tmp_path) == f"npas {planner.__version__}\n"

    model = tmp_path / "tiny.py"
    model.write_text(
        "import torch\n\n\n"
        "def tiny():\n"
        "    layers = [torch.nn.Linear(32, 32) for _ in range(4)]\n"
        "    return torch.nn.Sequential(*layers)\n"
    )
    options = ["--budget", "50%", "--input", "2x32", "-o", "tiny.plan.json"]
    run(npas, "plan", "tiny.py:tiny", *options, cwd=tmp_path)
    assert "def build(" in run(npas, "emit", "tiny.plan.json", cwd=tmp_path)
    where = (
        "import planner, planner.resources as r; print(planner.__file__); print(r.template_root())"
    )
    home = checkout if kind == "editable" else tmp_path / "venv"
    for line in run(python, "-c", where, cwd=tmp_path).splitlines():
        assert Path(line).is_relative_to(home)
