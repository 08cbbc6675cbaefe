"""What commands take, in seconds of processors: other processes of the machine move those least."""

import resource

import pytest

from emitted import run


def seconds(*arguments, cwd):
    """Processor seconds of an ``npas`` command, its imports included."""

    def used():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = used()
    done = run("-m", "planner", *arguments, cwd=cwd, OMP_NUM_THREADS="1")
    assert done.status == 0, done.messages
    return used() - before


def test_help_comes_at_once(tmp_path):
    assert seconds("--help", cwd=tmp_path) < 0.5


@pytest.mark.slow
def test_a_resnet_is_planned_and_emitted_in_seconds(tmp_path):
    seconds("plan", "torchvision:resnet50", "--budget", "10%", "-o", "warm.json", cwd=tmp_path)
    plan = seconds("plan", "torchvision:resnet50", "--budget", "10%", "-o", "a.json", cwd=tmp_path)
    emit = seconds("emit", "a.json", "-o", "a.py", cwd=tmp_path)
    # Ten seconds on two cores, with some room for cores that are slower or shared.
    assert plan + emit < 15
