"""Small models as users write them: whole architectures of research code, in its own style.

``CASES`` is the table: name → (factory of the model, inputs for a batch size). The models are in
the modules of this package, by subject, and join the table as those are imported.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[int], tuple]]] = {}


def written(*inputs, name=None, **arguments):
    """Add a class or function to the table, called with ``arguments``.

    Each of ``inputs`` is the shape of a sample of noise, or a function of the batch size.
    """

    def add(made):
        CASES[name or made.__name__] = (lambda: made(**arguments), _made)
        return made

    def _made(batch):
        return tuple(one(batch) if callable(one) else torch.randn(batch, *one) for one in inputs)

    return add


def ids(high, *shape):
    """Integers below ``high``; ``shape`` is a sample's."""
    return lambda batch: torch.randint(high, (batch, *shape))


def fixed(make):
    """What does not depend on the batch size."""
    return lambda _batch: make()
