"""What a model's own initialiser does to each parameter, learned without memory for the parameters.

Under :func:`recording` a model is built on its real device, so that position tables and ``.item()``
work, but every parameter moves to the meta device as it is registered, and operations that
initialise are noted per storage instead of being measured on values.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy

from planner import formulas
from planner.distributions import Distribution, measured, normal
from planner.ir import Initial, significant
from planner.observation import Observations
from planner.observing import observing

# Fewer values than this cannot tell one scheme from another.
_ENOUGH = 1000
# Standard errors by which a measured moment may miss the scheme's.
_ERRORS = 5.0


class Record:
    """What was seen while a model was built; valid for as long as the model lives."""

    def __init__(self) -> None:
        self.observations = Observations()
        self._moved = torch.utils.weak.WeakTensorKeyDictionary()

    def distribution(self, parameter: torch.Tensor) -> Distribution | None:
        """Distribution of ``parameter`` after the build, or None if unknown."""
        return self.observations.read(parameter)

    def initial(self, parameter: torch.Tensor) -> Initial | None:
        """``parameter``'s distribution as an :class:`~planner.ir.Initial`, or None if unknown."""
        found = self.distribution(parameter)
        return None if found is None else _initials([("", tuple(parameter.shape), found)])[0]

    def move(self, _module: nn.Module, _name: str, parameter: nn.Parameter) -> nn.Parameter | None:
        """Registration hook: ``parameter`` on the meta device, the same one for the same one."""
        if parameter.is_meta or is_lazy(parameter):
            return None
        before: nn.Parameter | None = self._moved.get(parameter)  # type: ignore[no-untyped-call]
        if before is not None:
            return before
        with torch.no_grad():
            shell = torch.empty_like(parameter.detach(), device="meta")
        if type(shell) is not torch.Tensor:
            return None
        self.observations.settle(parameter)
        moved: nn.Parameter = torch.Tensor._make_subclass(  # noqa: SLF001  keeps the class of the parameter
            type(parameter), shell, parameter.requires_grad
        )
        moved.__dict__.update(parameter.__dict__)
        # What is later done to the real one, under another name, counts for both.
        self.observations.link(moved, parameter)
        self._moved[parameter] = moved
        return moved


@contextmanager
def recording() -> Iterator[Record]:
    """Build models inside: parameters land on the meta device, the record knows their values.

    Ties survive, buffers and plain tensors stay real. Building fails here if it reads the value of
    a registered parameter; such a model has to be built plainly.
    """
    record = Record()
    handle = register_module_parameter_registration_hook(record.move)  # type: ignore[arg-type]
    try:
        with observing(record.observations):
            yield record
    finally:
        handle.remove()


def initials(model: nn.Module, record: Record | None = None) -> dict[str, Initial]:
    """The distribution of every parameter, once per tensor, under its first name.

    In this order: what ``record`` saw; the values, of a real tensor; what the owner's own
    ``reset_parameters`` or ``_reset_parameters`` does; else a normal with std = 1/sqrt(fan_in)
    (the number of elements for a vector), which keeps the variance of a layer's output. Values that
    the owner's own initialiser may well have drawn count as drawn by it, and tensors of one kind
    and shape whose moments agree are measured together, so that equal layers start alike.
    """
    found: list[tuple[str, tuple[int, ...], Distribution]] = []
    names: list[str] = []
    for name, parameter in model.named_parameters():
        prefix, _, own = name.rpartition(".")
        owner = model.get_submodule(prefix)
        known = None if record is None else record.distribution(parameter)
        if known is None and not parameter.is_meta:
            known = measured(parameter)
            drawn = _by_reset(owner, own) if not list(owner.children()) else None
            if known is not None and drawn is not None and _agree(known, drawn):
                known = drawn
        if known is None:
            known = _by_reset(owner, own) or _default(tuple(parameter.shape))
        names.append(name)
        found.append((type(owner).__name__, tuple(parameter.shape), known))
    kinds = [
        (owner, shape, name.rpartition(".")[2])
        for name, (owner, shape, _) in zip(names, found, strict=True)
    ]
    together = _together(kinds, [known for _, _, known in found])
    found = [(owner, shape, one) for (owner, shape, _), one in zip(found, together, strict=True)]
    return dict(zip(names, _initials(found), strict=True))


def _agree(sample: Distribution, whole: Distribution) -> bool:
    """Whether measured values may have been drawn from ``whole``."""
    if not sample.samples or whole.std == 0.0:
        return (sample.mean, sample.std) == (whole.mean, whole.std)
    error = whole.std / math.sqrt(sample.samples)
    return (
        whole.low <= sample.low
        and sample.high <= whole.high
        and abs(sample.mean - whole.mean) <= _ERRORS * error
        and abs(sample.std - whole.std) <= _ERRORS * error
    )


def _together(kinds: Sequence[Hashable], found: Sequence[Distribution]) -> list[Distribution]:
    """Measured distributions pooled within a kind, where all of it agree with the pool."""
    groups: dict[Hashable, list[int]] = {}
    for index, (kind, one) in enumerate(zip(kinds, found, strict=True)):
        if one.samples and one.std > 0.0:
            groups.setdefault((kind, one.family), []).append(index)
    result = list(found)
    for members in groups.values():
        samples = sum(found[index].samples for index in members)
        if samples < _ENOUGH:
            continue
        mean = sum(found[index].mean * found[index].samples for index in members) / samples
        square = sum(
            (found[index].std ** 2 + found[index].mean ** 2) * found[index].samples
            for index in members
        )
        std = math.sqrt(max(0.0, square / samples - mean**2))
        if abs(mean) <= _ERRORS * std / math.sqrt(samples):
            mean = 0.0
        pool = replace(
            found[members[0]], mean=mean, std=std, low=-math.inf, high=math.inf, samples=samples
        )
        if all(_agree(found[index], pool) for index in members):
            for index in members:
                result[index] = pool
    return result


def unknown(model: nn.Module, record: Record) -> list[str]:
    """Names of the parameters whose distribution ``record`` doesn't know."""
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.is_meta and record.distribution(parameter) is None
    ]


def _by_reset(owner: nn.Module, name: str) -> Distribution | None:
    """What the owner's own initialiser does to its parameter ``name``, seen on a meta copy."""
    reset = getattr(type(owner), "reset_parameters", None) or getattr(
        type(owner), "_reset_parameters", None
    )
    if reset is None:
        return None
    record = Record()
    try:
        # A copy without its children's values: only the owner's own parameters are of interest.
        shell = copy.deepcopy(owner)
        with torch.no_grad(), observing(record.observations):
            reset(shell.to("meta"))
    except Exception:  # noqa: BLE001  a stranger's initialiser may do anything; then it is unknown
        return None
    parameter = getattr(shell, name, None)
    return record.distribution(parameter) if isinstance(parameter, torch.Tensor) else None


def _default(shape: tuple[int, ...]) -> Distribution:
    fan_in = formulas.fans(shape)[0] if len(shape) > 1 else math.prod(shape)
    return normal(0.0, 1.0 / math.sqrt(max(1, fan_in)))


def _initials(
    tensors: Sequence[tuple[str, tuple[int, ...], Distribution]],
) -> list[Initial]:
    """Distributions of (owner, shape, distribution) as initials with their schemes."""
    centred = [index for index, (_, _, one) in enumerate(tensors) if _centred(one)]
    schemes = formulas.recognise(
        [
            formulas.Drawn(owner, shape, one.family, one.std, _tolerance(one), one.formula)
            for owner, shape, one in (tensors[index] for index in centred)
        ]
    )
    by_index = dict(zip(centred, schemes, strict=True))
    result: list[Initial] = []
    for index, (_, shape, one) in enumerate(tensors):
        scheme = by_index.get(index)
        text, exact = one.formula or None, one
        if scheme is not None:
            text, exact = scheme.text, replace(one, mean=0.0, std=scheme.std(shape))
        result.append(
            # Adding zero turns -0.0 into 0.0.
            Initial(one.family, significant(exact.mean) + 0.0, significant(exact.std), text)
        )
    return result


def _tolerance(one: Distribution) -> float:
    """Relative: std's standard error is std/sqrt(2n) for a normal and less for a uniform."""
    return _ERRORS / math.sqrt(2.0 * one.samples) if one.samples else 1e-6


def _centred(one: Distribution) -> bool:
    if one.samples:
        return one.samples >= _ENOUGH and abs(one.mean) * math.sqrt(one.samples) <= (
            _ERRORS * one.std
        )
    return abs(one.mean) <= 1e-6 * one.std
