"""The way through: model → program → sites → evidence → allocation → plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from planner.allocation import allocate
from planner.budgets import parse_budget
from planner.errors import PlannerError, TraceError
from planner.evidence import shape_evidence
from planner.ir import GENERATORS, MENU, Generator, Initial, TensorSpec
from planner.plans import Plan
from planner.sites import dense_parameters, find_sites
from planner.validation import check

if TYPE_CHECKING:
    import torch
    from torch import nn


def plan(
    model: nn.Module | str,
    budget: str | int | float,
    example_inputs: Sequence[torch.Tensor | TensorSpec] | None = None,
    *,
    evidence: str = "shape",
    constraints: None = None,
    seed: int = 0,
    generators: Sequence[Generator] | None = None,
    arguments: Mapping[str, object] | None = None,
    deterministic_limit: float | None = None,
) -> Plan:
    """Plan how the weights of ``model`` are generated from at most ``budget`` parameters.

    Args:
        model: a module, or a specification such as ``package.module:callable``,
            ``path/file.py:callable`` or ``torchvision:resnet50``. Parameters may be on the meta
            device.
        budget: ``"10%"``, ``"0.1x"``, ``"18M"``, ``2500000``, ``"64MB"``; all trainable parameters
            of the emitted module count against it, each once.
        example_inputs: tensors, or their shapes and dtypes, in the order of ``forward``'s
            arguments. May be left out where the specification has inputs of its own.
        evidence: what groups are made from; ``"shape"`` needs no data.
        constraints: reserved; must be None.
        seed: seeds the model's construction and the hash generators.
        generators: the menu of generators; by default all but ``"tie"``.
        arguments: keyword arguments of a specification's callable.
        deterministic_limit: the solver's limit in its own deterministic units (about seconds).

    Raises:
        ModelSourceError, TraceError, UnsupportedSiteError, BudgetError, InfeasibleBudgetError,
        SolveLimitError: see each; all are PlannerError.
    """
    from planner.initializers import initials
    from planner.loading import LoadedModel, load_model
    from planner.tracing import trace

    if constraints is not None:
        raise PlannerError("constraints are not supported yet: pass None")
    if evidence != "shape":
        raise PlannerError(f"evidence {evidence!r} is not known: use 'shape'")
    menu = tuple(MENU if generators is None else generators)
    for name in menu:
        if name not in GENERATORS:
            raise PlannerError(f"generator {name!r} is not one of {', '.join(GENERATORS)}")
    spec = ""
    starts: Mapping[str, Initial]
    if isinstance(model, str):
        loaded: LoadedModel = load_model(model, arguments or {}, seed=seed)
        module, starts, spec = loaded.model, loaded.initials, loaded.spec
        if example_inputs is None:
            example_inputs = loaded.example_inputs
    else:
        module, starts = model, initials(model)
        spec = f"{type(model).__module__}.{type(model).__qualname__}"
    if not example_inputs:
        raise TraceError(
            "the model's inputs are not known: give their shapes with --input 1x3x224x224 "
            "(example_inputs=... in Python)"
        )
    program = trace(module, [_tensor(item) for item in example_inputs])
    sites = find_sites(module, program, starts)
    dense = dense_parameters(sites)
    parameters = parse_budget(budget, dense, _bytes_per_parameter(module))
    limits = {} if deterministic_limit is None else {"deterministic_limit": deterministic_limit}
    allocation = allocate(
        sites, shape_evidence(sites), parameters, seed=seed, generators=menu, **limits
    )
    check(sites, allocation)
    return Plan(
        spec=spec,
        seed=seed,
        evidence=evidence,
        budget=str(budget),
        budget_parameters=parameters,
        dense_parameters=dense,
        program=program,
        sites=sites,
        allocation=allocation,
    )


def _tensor(item: torch.Tensor | TensorSpec) -> torch.Tensor:
    import torch

    if isinstance(item, TensorSpec):
        return torch.empty(item.shape, dtype=getattr(torch, item.dtype), device="meta")
    return item


def _bytes_per_parameter(model: nn.Module) -> int:
    return max((p.element_size() for p in model.parameters() if p.requires_grad), default=4)
