"""The nine models that the end-to-end suites plan, and small inputs for each."""

from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import torch

import planner
from planner.sources import find_source

ZOO = Path(__file__).parent / "zoo"

BUDGETS = ("1%", "10%", "50%", "100%", "200%")


@dataclass(frozen=True, slots=True)
class Model:
    """A specification with its arguments, and the shape of one input without its batch.

    ``tokens`` is the vocabulary of models that read ids, 0 for those that read images.
    """

    name: str
    spec: str
    sample: tuple[int, ...]
    arguments: MappingProxyType = field(default_factory=lambda: MappingProxyType({}))
    tokens: int = 0

    def inputs(self, batch=2, seed=0):
        """Random inputs; each batch of ids starts where the one of the seed before stopped."""
        shape = (batch, *self.sample)
        if self.tokens:
            first = seed * batch * self.sample[0]
            ids = torch.arange(first, first + batch * self.sample[0]) * 7 % self.tokens
            return (ids.view(shape),)
        return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)),)

    def original(self, seed=0):
        """The plain model with real values, without the planner's recording of initialisers."""
        torch.manual_seed(seed)
        return find_source(self.spec, dict(self.arguments)).build()

    def plan(self, budget, **options):
        return planner.plan(self.spec, budget, self.inputs(), arguments=self.arguments, **options)

    def command(self):
        """MODEL and its options on the command line."""
        dtype = ":int64" if self.tokens else ""
        shape = "x".join(str(size) for size in (2, *self.sample))
        given = [
            item for key, value in self.arguments.items() for item in ("--arg", f"{key}={value}")
        ]
        return [self.spec, *given, "--input", shape + dtype]


def _zoo(name, file, sample, tokens=0, **arguments):
    spec = f"{ZOO / file}.py:{file}"
    return Model(name, spec, sample, MappingProxyType(arguments), tokens)


def _torchvision(name, side):
    return Model(name, f"torchvision:{name}", (3, side, side))


# Image models take images of any size, ViT apart: small ones keep the tests quick.
MODELS = {
    model.name: model
    for model in (
        _zoo("wrn-28-10", "wide_resnet", (3, 16, 16), depth=28, widen_factor=10),
        _zoo("wrn-16-4", "wide_resnet", (3, 16, 16), depth=16, widen_factor=4),
        _torchvision("resnet50", 64),
        _torchvision("efficientnet_b0", 64),
        _torchvision("densenet121", 64),
        _torchvision("vit_b_16", 224),
        _zoo("transformer_lm", "transformer_lm", (64,), tokens=1000),
        _zoo("lstm_lm", "lstm_lm", (64,), tokens=1000),
        _zoo("mlp", "mlp", (1, 28, 28)),
    )
}
SMALL = ("wrn-16-4", "transformer_lm", "lstm_lm", "mlp")

WRN_16_2 = _zoo("wrn-16-2", "wide_resnet", (3, 32, 32), depth=16, widen_factor=2)


def find(name):
    """A model by name: one of the nine, or WRN-16-2."""
    return WRN_16_2 if name == WRN_16_2.name else MODELS[name]
