"""A search ends at a limit of time and at Ctrl-C, with the best allocation so far."""

import json
import os
import signal
import subprocess
import sys

import pytest

import planner
import site_lists
from emitted import ROOT
from planner.allocation import allocate
from planner.effort import Progress
from planner.evidence import shape_evidence
from planner.reporting import progress_text
from planner.validation import check

MANY = (20, 40, 60, 40)
"""Layers of a network whose allocation takes the solver seconds."""


def test_a_limit_of_time_ends_the_search_with_a_valid_allocation():
    sites = site_lists.dense_net(MANY)
    budget = site_lists.dense_count(sites) // 10
    allocation = allocate(sites, shape_evidence(sites), budget, time_limit=0.5)
    check(sites, allocation)
    solution = allocation.solution
    assert (solution.status, solution.stopped) == ("FEASIBLE", "time limit")
    assert solution.objective <= solution.bound


def test_progress_tells_objective_and_bound_and_changes_nothing():
    sites = site_lists.dense_net()
    budget = site_lists.dense_count(sites) // 10
    told = []
    watched = allocate(sites, shape_evidence(sites), budget, progress=told.append)
    assert told[-1].objective == watched.solution.objective
    assert told[-1].bound >= watched.solution.bound
    assert [one.seconds for one in told] == sorted(one.seconds for one in told)
    assert watched == allocate(sites, shape_evidence(sites), budget)


def test_progress_reads_well():
    assert progress_text(Progress(2.4, 1000, 1010)) == (
        "solving for 2 s, objective 1,000, bound 1,010, gap 1.00%; "
        "Ctrl-C keeps the best plan so far"
    )
    assert "gap" not in progress_text(Progress(2.4, 1000, None))


@pytest.mark.parametrize("limit", [0, -1.0, float("inf"), float("nan")])
def test_a_limit_of_no_time_is_refused(limit):
    with pytest.raises(planner.PlannerError, match="time limit"):
        planner.plan("tests/zoo/mlp.py:mlp", "10%", [], time_limit=limit)


SCRIPT = """
import json
import sys

sys.path.insert(0, "tests")
import site_lists
from planner.allocation import allocate
from planner.evidence import shape_evidence
from planner.validation import check

sites = site_lists.dense_net((20, 40, 60, 40))

def tell(progress):
    print("searching", flush=True)

budget = site_lists.dense_count(sites) // 10
found = allocate(sites, shape_evidence(sites), budget, deterministic_limit=1000, progress=tell)
check(sites, found)
print(json.dumps([found.solution.status, found.solution.stopped]), flush=True)
"""


def test_ctrl_c_keeps_the_best_allocation_so_far():
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout.readline() == "searching\n"
        child.send_signal(signal.SIGINT)
        *_, last = child.stdout
        assert child.wait() == 0
    assert json.loads(last) == ["FEASIBLE", "interrupted"]
