"""Initialisation schemes of ``torch.nn.init``, recognised by the standard deviation they give.

A scheme such as ``kaiming_normal_(mode="fan_out")`` serves every shape with one line of code, where
a number serves one shape. With fan_in = I·k and fan_out = O·k (k the product of the axes after the
second), std = gain / sqrt(fan) for Kaiming (He et al. 2015, eq. 10 and 14) and
std = sqrt(2 / (fan_in + fan_out)) for Xavier (Glorot and Bengio 2010, eq. 16); a uniform scheme
draws from ±sqrt(3)·std.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from planner.ir import significant

# Gains: sqrt(2 / (1 + a²)) of a leaky rectifier, so a = sqrt(5) (torch's default of convolutions
# and linear layers) gives 1/sqrt(3); "relu" is a = 0.
_GAINS = (
    ('nonlinearity="relu"', math.sqrt(2.0)),
    ('nonlinearity="linear"', 1.0),
    ("a=math.sqrt(5)", math.sqrt(1.0 / 3.0)),
)
# Schemes that no standard deviation tells, known only from the call that was seen.
SEEN_CALLS = ("orthogonal_()", "dirac_()", "eye_()")


@dataclass(frozen=True, slots=True)
class Scheme:
    """A call of ``torch.nn.init``: ``text`` is its tail, without the tensor."""

    text: str
    family: Literal["normal", "uniform"]
    gain: float
    fan: Literal["in", "out", "both"]

    def std(self, shape: tuple[int, ...]) -> float:
        """Standard deviation that the scheme gives a tensor of ``shape`` (two axes or more)."""
        fan_in, fan_out = fans(shape)
        if self.fan == "both":
            return self.gain * math.sqrt(2.0 / (fan_in + fan_out))
        return self.gain / math.sqrt(fan_in if self.fan == "in" else fan_out)


def _schemes() -> tuple[Scheme, ...]:
    families: tuple[Literal["normal", "uniform"], ...] = ("normal", "uniform")
    found = [Scheme(f"xavier_{family}_()", family, 1.0, "both") for family in families]
    for keyword, gain in _GAINS:
        for family in families:
            # a=sqrt(5) exists for its uniform bound 1/sqrt(fan); with a normal it is a coincidence.
            if family == "normal" and keyword.startswith("a="):
                continue
            call = f"kaiming_{family}_"
            found.append(Scheme(f"{call}({keyword})", family, gain, "in"))
            found.append(Scheme(f'{call}(mode="fan_out", {keyword})', family, gain, "out"))
    return tuple(found)


SCHEMES = _schemes()

FORMULAS: tuple[str, ...] = (*(scheme.text for scheme in SCHEMES), *SEEN_CALLS)
"""Every text that :attr:`planner.ir.Initial.formula` may hold."""


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) as ``torch.nn.init`` counts them; (1, 1) below two axes."""
    if len(shape) < 2:
        return 1, 1
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


@dataclass(frozen=True, slots=True)
class Drawn:
    """What is to be recognised: a tensor's shape, its distribution, and the layer it belongs to.

    ``owner`` is the type of layers that one recipe initialises ("Conv2d"); ``tolerance`` is the
    relative uncertainty of ``std``; ``formula`` a scheme that was seen to be called.
    """

    owner: str
    shape: tuple[int, ...]
    family: str
    std: float
    tolerance: float
    formula: str | None = None


def recognise(tensors: Sequence[Drawn]) -> list[Scheme | None]:
    """The scheme of each tensor that has mean zero, or None.

    A tensor may fit several schemes (fan_in equals fan_out in a square layer), so the layers of one
    owner decide together: those of one standard deviation take a scheme that fits them all (a fixed
    0.02 fits none for long), and among these the scheme that most layers of the owner fit wins.
    """
    common: dict[tuple[str, str, float], list[Scheme]] = {}
    for tensor in tensors:
        if len(tensor.shape) < 2:  # a bias, drawn with its weight's bound, says nothing
            continue
        schemes, before = _fitting(tensor), common.get(_alike(tensor))
        if before is not None:
            schemes = [one for one in before if one in schemes]
        common[_alike(tensor)] = schemes
    open_to = [common[_alike(one)] if len(one.shape) > 1 else [] for one in tensors]
    votes = Counter(
        (tensor.owner, scheme.text)
        for tensor, schemes in zip(tensors, open_to, strict=True)
        for scheme in schemes
    )
    # max() keeps the first of equals: the order of SCHEMES breaks ties.
    return [
        max(schemes, key=_votes(votes, tensor.owner), default=None)
        for tensor, schemes in zip(tensors, open_to, strict=True)
    ]


def _votes(votes: Counter[tuple[str, str]], owner: str) -> Callable[[Scheme], int]:
    return lambda scheme: votes[owner, scheme.text]


def _alike(tensor: Drawn) -> tuple[str, str, float]:
    return tensor.owner, tensor.family, significant(tensor.std)


def _fitting(tensor: Drawn) -> list[Scheme]:
    if tensor.std <= 0.0 or tensor.formula is not None:
        return []
    return [
        scheme
        for scheme in SCHEMES
        if scheme.family == tensor.family
        and abs(scheme.std(tensor.shape) / tensor.std - 1.0) <= tensor.tolerance
    ]
