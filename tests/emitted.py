"""Plans of the registry's models, each made once for all tests, and modules emitted from them."""

import functools
import hashlib
import itertools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import planner
from models import BUDGETS, MODELS, SMALL, ZOO, find
from runtime_rendering import load

ROOT = Path(__file__).parents[1]


def cases():
    """All pairs of a model and a budget; a sample of them runs by default."""
    found = []
    for name, budget in itertools.product(MODELS, BUDGETS):
        sampled = [pytest.mark.sample] if budget == "10%" or name in SMALL else []
        marks = [pytest.mark.matrix, *sampled]
        found.append(pytest.param((name, budget), id=f"{name}-{budget}", marks=marks))
    return found


class Plans:
    """``plans(model, budget, **options)``: a plan, made once by the workers of a run together."""

    def __init__(self, folder):
        self.folder = folder
        self.planned = functools.cache(self._planned)

    def __call__(self, name, budget, **options):
        return self.planned(name, budget, tuple(sorted(options.items())))

    def _planned(self, name, budget, options):
        key = hashlib.sha256(repr((name, budget, options)).encode()).hexdigest()[:16]
        path = self.folder / f"{key}.json"
        if path.exists():
            return planner.Plan.from_json(path.read_text())
        plan = find(name).plan(budget, **dict(options))
        planner.write(plan.to_json(), path)
        return plan

    def least(self, name, budget):
        """The plan at ``budget``, or at the least possible where that is more."""
        try:
            return self(name, budget)
        except planner.InfeasibleBudgetError as error:
            return self(name, error.minimum)

    def module(self, plan):
        """The emitted file of a plan, imported under a name of its own."""
        return load(planner.emit(plan), self.folder)


@dataclass(frozen=True, slots=True)
class Done:
    """What a finished process left."""

    status: int
    output: str
    messages: str


def run(*arguments, cwd=ROOT, **environment):
    """Run Python in a process of its own, where ``planner`` and ``cli`` can be imported."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


_SERVE = """
import contextlib, io, json, os, sys
import cli

model = ["plan", sys.argv[1], "--arg", "width=8", "--budget", "30%"]
sys.argv = ["npas", *model]
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    cli.main()

for line in sys.stdin:
    call = json.loads(line)
    child = os.fork()
    if not child:
        os.chdir(call["cwd"])
        for number, name in ((1, "output"), (2, "messages")):
            os.dup2(os.open(call[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv = ["npas", *call["arguments"]]
        cli.main()
        sys.exit(0)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Command:
    """``command(*arguments, cwd=...)`` runs ``npas`` in a process of its own.

    The processes are forks of one that has planned once: what takes seconds to import is there.
    """

    def __init__(self, folder):
        self.folder = folder
        self.server = subprocess.Popen(
            [sys.executable, "-c", _SERVE, f"{ZOO / 'mlp.py'}:mlp"],
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments, cwd):
        files = {name: str(self.folder / name) for name in ("output", "messages")}
        call = {"cwd": str(cwd), "arguments": [str(one) for one in arguments], **files}
        self.server.stdin.write(json.dumps(call) + "\n")
        self.server.stdin.flush()
        status = int(self.server.stdout.readline())
        texts = (Path(file).read_text() for file in files.values())
        return Done(status, *texts)

    def close(self):
        self.server.stdin.close()
        self.server.wait()
        self.server.stdout.close()


def run_clean(script, *forbidden, cwd):
    """Run ``script`` where no module of the ``forbidden`` packages can be imported.

    The interpreter is isolated: neither its environment nor the current folder is looked up.
    """
    code = f"import sys\nsys.modules.update(dict.fromkeys({forbidden!r}))\n{script}"
    return run("-I", "-c", code, cwd=cwd)
