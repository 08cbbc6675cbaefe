"""The five steps of a case: each returns the facts that it found, or raises what stops it."""

from __future__ import annotations

import copy
import itertools
import random
from collections import Counter
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import torch
from torch import nn

import planner
from benchmarks.coverage.case import Case, Inputs
from benchmarks.coverage.comparison import (
    DifferenceError,
    assert_same_shapes,
    deviation,
    leaves,
)
from benchmarks.coverage.sizes import Other, others
from benchmarks.coverage.standalone import import_source, torch_alone

Facts: TypeAlias = "dict[str, object]"

REFUSAL = "ValueError: captured at"
"""How an emitted file says that it does not serve a size."""

ENOUGH = 2
"""Other sizes of an axis that are compared, of those that the original takes."""

NOISE = 0.01
"""Added to all parameters: what starts at zero or one hides errors."""


class Examination:
    """One case on its way through the steps, which are called in the order of ``STEPS``."""

    def __init__(self, case: Case) -> None:
        self.case = case
        _seed(0)
        self.model = case.build()
        self.example = case.inputs(case.batches[0])

    def runs(self) -> Facts:
        """The original takes its inputs in every mode, and does the same from the same seed."""
        for training, batch in itertools.product(self.case.modes, self.case.batches):
            first = _forward(self.model, _inputs(self.case, batch), training)
            if not leaves(first):
                raise DifferenceError("the original returns no tensor")
            if not all(one.isfinite().any() for one in leaves(first)):
                raise DifferenceError("the original's output is nowhere finite")
        # The last one again; in training it draws random numbers, if the model does at all.
        again = _forward(self.model, _inputs(self.case, batch), training)
        try:
            deviation(first, again)
        except DifferenceError as error:
            raise DifferenceError(f"the original repeated: {error}") from error
        trainable = [one.numel() for one in self.model.parameters() if one.requires_grad]
        self.dense = sum(trainable)
        return {"dense": self.dense, "differentiable": self.differentiable()}

    def differentiable(self) -> bool:
        """Whether a backward goes through: not where an original overwrites what it needs."""
        try:
            _backward(self.model, _inputs(self.case, self.case.batches[0]), self.case.modes[-1])
        except (RuntimeError, DifferenceError):
            return False
        self.model.zero_grad()
        return True

    def fresh(self) -> torch.nn.Module:
        """The model as it was built, before it ran."""
        _seed(0)
        return self.case.build()

    def plans(self) -> Facts:
        """A plan that leaves every tensor its own parameters can be made and emitted."""
        before = {key: one.clone() for key, one in self.model.state_dict().items()}
        # Afresh: libraries give a model hooks while it runs, and the planner refuses those.
        plan = planner.plan(self.fresh, "100%", self.example, generators=("own",))
        self.source = planner.emit(plan)
        self.verification = plan.program.verification
        after = self.model.state_dict()
        if changed := [key for key in before if not _same(before[key], after[key])]:
            raise DifferenceError(f"planning changed the model: {changed[0]}")
        definitions = plan.program.definitions
        return {
            "lines": len(self.source.splitlines()),
            "sites": len(plan.sites),
            "definitions": len(definitions),
            # Programs that don't say how a module was captured were traced symbolically.
            "rungs": dict(Counter(getattr(one, "rung", "symbolic") for one in definitions)),
        }

    def equals(self) -> Facts:
        """With the original's weights, the emitted module has its outputs and its state."""
        original = self.model
        _seed(1)
        with torch.no_grad():
            for parameter in original.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=NOISE)
        with torch_alone():
            emitted = import_source(self.source).build()
            emitted.load_dense_state_dict(original.state_dict())
        self.emitted = emitted
        worst = 0.0
        for training, batch in itertools.product(self.case.modes, self.case.batches):
            inputs = _inputs(self.case, batch)
            expected = _forward(original, inputs, training)
            with torch_alone():
                found = _forward(emitted, inputs, training)
            try:
                worst = max(worst, deviation(expected, found))
            except DifferenceError as error:
                mode = "train" if training else "eval"
                raise DifferenceError(f"{mode}, batch {batch}: {error}") from error
        _assert_same_state(original, emitted)
        return {"deviation": worst}

    def resizes(self) -> Facts:
        """At other lengths and image sizes that the original takes, the emitted module is equal."""
        taken: list[str] = []
        wrong: list[str] = []
        refused: list[str] = []
        for choices in others(_inputs(self.case, self.case.batches[0])):
            tried = 0
            for other in choices:
                told = self._resized(other)
                if told is None:
                    continue
                taken.append(other.told)
                if told:
                    (refused if told.startswith(REFUSAL) else wrong).append(f"{other.told}: {told}")
                tried += 1
                if tried == ENOUGH:
                    break
        if wrong or refused:
            raise DifferenceError("; ".join([*wrong, *refused]))
        return {"sizes": taken}

    def _resized(self, other: Other) -> str | None:
        """How the emitted module differs on ``other``; None where the original does not run."""
        for training in self.case.modes:
            # Twins, since a forward may change what its module keeps.
            original, emitted = copy.deepcopy((self.model, self.emitted))
            try:
                expected = _forward(original, other.inputs, training)
            except Exception:  # noqa: BLE001  whatever a forward raises at a size that it refuses
                return None
            if not all(one.isfinite().any() for one in leaves(expected)):
                return None
            try:
                with torch_alone():
                    found = _forward(emitted, other.inputs, training)
                deviation(expected, found)
            except Exception as error:  # noqa: BLE001  the original ran, so this is the finding
                return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
        return ""

    def trains(self) -> Facts:
        """At a tenth of the parameters, every bank gets a gradient and the budget holds."""
        facts: Facts = {}
        try:
            # The capture was compared with the model when every tensor kept its own parameters.
            plan = planner.plan(self.fresh, max(1, self.dense // 10), self.example, verify=False)
        except planner.InfeasibleBudgetError as error:
            facts["minimum"] = error.minimum
            plan = planner.plan(self.fresh, error.minimum, self.example, verify=False)
        source = planner.emit(plan)
        differentiable = self.differentiable()
        training = self.case.modes[-1]
        inputs = _inputs(self.case, self.case.batches[0])
        expected = _forward(self.model, inputs, training)
        with torch_alone():
            emitted = import_source(source).build()
            count = sum(one.numel() for one in emitted.parameters() if one.requires_grad)
            if count > plan.budget_parameters:
                raise DifferenceError(f"{count} parameters, {plan.budget_parameters} in the budget")
            zeros = _dead(emitted, inputs, training, expected) if differentiable else None
        return {
            **facts,
            "budget": plan.budget_parameters,
            "parameters": count,
            "zero_gradients": zeros,
            "budget_lines": len(source.splitlines()),
            "gap": plan.allocation.solution.gap,
        }


STEPS: Mapping[str, tuple[str, ...]] = {
    "runs": (),
    "plans": ("runs",),
    "equals": ("plans",),
    "resizes": ("equals",),
    "trains": ("plans",),
}
"""The steps in order, each with those that it needs to have passed."""


def _seed(seed: int) -> None:
    """Of every generator that a forward may draw from."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  libraries draw from the global generator
    random.seed(seed)


def _inputs(case: Case, batch: int) -> Inputs:
    _seed(batch)
    return case.inputs(batch)


def _call(model: nn.Module, inputs: Inputs) -> object:
    return model(**inputs) if isinstance(inputs, dict) else model(*inputs)


@torch.no_grad()
def _forward(model: nn.Module, inputs: Inputs, training: bool) -> object:
    _seed(7)
    return _call(model.train(training), inputs)


def _same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one.nan_to_num(), other.nan_to_num())
    return one == other


def _assert_same_state(original: nn.Module, emitted: nn.Module) -> None:
    """After the same forwards, the same state under the same keys."""
    expected, found = original.state_dict(), emitted.dense_state_dict()
    if list(expected) != list(found):
        odd = sorted(set(expected) ^ set(found))[:3]
        raise DifferenceError(f"the state's keys differ: {', '.join(odd) or 'their order'}")
    try:
        deviation(expected, found)
    except DifferenceError as error:
        raise DifferenceError(f"state after the forwards: {error}") from error


def _backward(model: nn.Module, inputs: Inputs, training: bool) -> object:
    """The outputs of a forward, after one step back from all of them."""
    _seed(7)
    output = _call(model.train(training), inputs)
    differentiable = [one for one in leaves(output) if one.requires_grad]
    if not differentiable:
        raise DifferenceError("no output has a gradient")
    loss = sum((one * torch.randn(one.shape)).sum() for one in differentiable)
    torch.autograd.backward(loss)
    return output


def _dead(emitted: nn.Module, inputs: Inputs, training: bool, expected: object) -> int:
    """How many bank parameters have a gradient of zero; of no bank, all."""
    with torch.no_grad():
        for parameter in emitted.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=NOISE)
    assert_same_shapes(expected, _backward(emitted, inputs, training))
    zeros = 0
    for name, bank in emitted.banks.named_parameters():
        if bank.grad is None or not bank.grad.any():
            raise DifferenceError(f"no gradient reaches {name}")
        zeros += int((bank.grad == 0).sum())
    return zeros
