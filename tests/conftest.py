"""What every test shares."""

import pytest
import torch

from emitted import Plans


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    # Workers of pytest-xdist share the cores; results must not depend on how many there are.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def plans(tmp_path_factory, worker_id):
    """Plans of the registry's models; workers of pytest-xdist share a folder of them."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "plans"
    folder.mkdir(exist_ok=True)
    return Plans(folder)
