"""Models in the style of research code: each emitted file does what its model does, and trains."""

import pytest

from benchmarks.coverage.catalogue import of_written
from benchmarks.coverage.examination import STEPS, Examination

CASES = {case.name.partition(":")[2]: case for case in of_written.cases()}
SAMPLE = (
    "Absent CachedShapes ChangesItsInput ComplexNumbers CountedAxes DeviceGiven Distributions "
    "FunctionalCall InitialStates NamedResults OldHabits TwoNames shared_norm BYOL DLRM "
    "MoEIndexAdd Siamese TCN VQVAE"
).split()


def examine(name):
    examination = Examination(CASES[name])
    for step in STEPS:
        getattr(examination, step)()


@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample_does_what_its_model_does(name):
    examine(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(CASES) - set(SAMPLE)))
def test_all_do_what_their_models_do(name):
    examine(name)
