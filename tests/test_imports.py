"""Data flows one way, each outside library has one place, and ``import planner`` stays quick."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the bottom up: a module imports from its own row and the rows before it. A package (tracing,
# emission) counts as one module.
LAYERS = [
    {"errors", "options", "resources", "patterns"},
    {"ir"},
    {"operations", "budgets", "files", "distributions", "formulas", "examples"},
    {"observation", "origins", "configurations"},
    {"transfers"},
    {"observing"},
    {"initializers"},
    {"libraries"},
    {"sources"},
    {"loading", "tracing"},
    {"topology"},
    {"sites"},
    {"evidence"},
    {"reconstruction"},
    {"rules"},
    {"constraints", "formulation"},
    {"valuation"},
    {"effort"},
    {"construction", "prices", "solver_model"},
    {"enforcement", "placement", "validation"},
    {"conflicts"},
    {"allocation", "baselines", "references"},
    {"plans"},
    {"emission"},
    {"narrowing", "pipeline", "outputs", "summary"},
    {"comparison", "curves", "probing", "reporting"},
    {"charts", "columns"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

# The only places that import these: a file, or a package's folder. Model libraries are imported by
# the names that specifications give, through importlib.
OWNERS = {
    "importlib": {"sources", "libraries", "__init__"},
    "networkx": {"topology"},
    "sklearn": {"evidence"},
    "scipy": {"evidence"},
    "ortools": {"allocation", "conflicts", "effort", "enforcement", "solver_model"},
    "jinja2": {"emission"},
    "pydantic": {"plans"},
    "rich": {"reporting"},
    "plotly": {"charts"},
    "ruff": {"emission"},
    "torchvision": set(),
    "timm": set(),
    "transformers": set(),
}


def unit(path):
    """The name that a module has in LAYERS and OWNERS."""
    return path.relative_to(ROOT / "planner").with_suffix("").parts[0]


def imported(path):
    """Every dotted name that a module imports anywhere, except for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "planner":
                yield from (f"planner.{alias.name}" for alias in node.names)
            else:
                yield node.module


MODULES = sorted(
    path
    for path in (ROOT / "planner").rglob("*.py")
    if unit(path) not in ("__init__", "__main__", "app")
)


def test_every_module_has_its_place_and_every_place_its_module():
    assert {unit(path) for path in MODULES} == set(LEVEL)
    assert len(LEVEL) == sum(map(len, LAYERS)), "a module stands in two rows"


def test_every_owner_imports_what_it_may():
    named = {
        (owner, name.partition(".")[0])
        for path in (ROOT / "planner").rglob("*.py")
        for owner in [unit(path)]
        for name in imported(path)
    }
    missing = [(owner, name) for name in OWNERS for owner in OWNERS[name]]
    assert [pair for pair in missing if pair not in named] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    own = unit(path)
    assert own in LEVEL, f"say in LAYERS where {own} stands"
    for name in imported(path):
        package, _, rest = name.partition(".")
        if package == "planner" and rest and not rest.startswith("__"):
            other = rest.partition(".")[0]
            assert LEVEL[other] <= LEVEL[own], f"{own} must not import {other}"


def test_no_two_modules_import_each_other():
    edges = {
        (unit(path), name.split(".")[1])
        for path in MODULES
        for name in imported(path)
        if name.startswith("planner.")
    }
    both = {(a, b) for a, b in edges if a != b and (b, a) in edges}
    assert not both


@pytest.mark.parametrize(
    "path", sorted((ROOT / "planner").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_outside_libraries_have_one_place(path):
    for name in imported(path):
        owners = OWNERS.get(name.partition(".")[0])
        assert owners is None or unit(path) in owners, f"{path} imports {name}"


def test_the_command_line_imports_no_library_but_typer():
    outside = {name.partition(".")[0] for name in imported(ROOT / "cli.py")}
    assert outside - set(sys.stdlib_module_names) == {"typer", "planner"}


@pytest.mark.parametrize("statement", ["import planner", "import cli", "import planner.errors"])
def test_import_loads_nothing_slow(statement):
    code = f"import sys; {statement}; print(*sorted(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in result.stdout.split()}
    slow = {
        "torch",
        "ortools",
        "networkx",
        "sklearn",
        "jinja2",
        "pydantic",
        "numpy",
        "pandas",
        "rich",
        "plotly",
    }
    assert "planner" in loaded
    assert not loaded & slow


def test_every_public_name_exists():
    code = "import planner; [getattr(planner, name) for name in planner.__all__]"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_unknown_names_are_attribute_errors():
    import planner

    with pytest.raises(AttributeError, match="nothing_like_it"):
        planner.nothing_like_it  # noqa: B018 (the access is the test)
