"""The way through: model → program → sites → evidence → allocation → plan."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from planner.allocation import allocate
from planner.budgets import parse_budget
from planner.constraints import Constraints, read_constraints, resolve
from planner.errors import PlannerError, TraceError
from planner.evidence import shape_evidence
from planner.ir import GENERATORS, MENU, Generator, Initial
from planner.plans import Plan
from planner.sites import dense_parameters, find_sites
from planner.validation import check

if TYPE_CHECKING:
    from torch import Tensor, nn

    from planner.effort import Progress
    from planner.examples import Inputs


def plan(
    model: nn.Module | str | Callable[..., nn.Module],
    budget: str | int | float,
    example_inputs: Inputs | None = None,
    *,
    evidence: str = "shape",
    constraints: Constraints | None = None,
    seed: int = 0,
    generators: Sequence[Generator] | None = None,
    arguments: Mapping[str, object] | None = None,
    deterministic_limit: float | None = None,
    time_limit: float | None = None,
    progress: Callable[[Progress], None] | None = None,
    verify: bool = True,
) -> Plan:
    """Plan how the weights of ``model`` are generated from at most ``budget`` parameters.

    Args:
        model: a module, or what builds one: a callable, or a specification such as
            ``package.module:callable``, ``path/file.py:callable`` or ``torchvision:resnet50``.
            Parameters may be on the meta device. Of a model that is built here it is known how its
            constants were computed, which a module that is there already does not tell.
        budget: ``"10%"``, ``"0.1x"``, ``"18M"``, ``2500000``, ``"64MB"``; all trainable parameters
            of the emitted module count against it, each once.
        example_inputs: what ``forward`` is called with: a tensor, a sequence of positional inputs,
            a mapping of keyword inputs, an :class:`~planner.examples.Example` of both, or a
            callable that returns one of these. Inputs may be nested in tuples, lists and dicts;
            a ``TensorSpec`` or a text such as ``int64:2x128`` may stand for a tensor. May be left
            out where the specification, or the library that it names, has inputs of its own.
        evidence: what groups are made from; ``"shape"`` needs no data.
        constraints: what the allocation must keep to: a sequence of ``planner.constraints``
            objects, or the path of a TOML or JSON file of them.
        seed: seeds the model's construction and the hash generators.
        generators: the menu of generators; by default all but ``"tie"``.
        arguments: keyword arguments of the callable.
        deterministic_limit: the solver's limit in its own deterministic units (about seconds).
        time_limit: seconds of wall clock that the search may take: the best plan found by then is
            returned, with its gap. The same call may then give another plan.
        progress: is called with a :class:`~planner.effort.Progress` a few times a second, in
            searches that take longer than one.
        verify: run the captured program beside the model, with random weights, in both modes and
            at two batch sizes, before it is planned; what differs is a TraceError.

    Ctrl-C while the solver runs ends its search: the best plan so far is returned, and
    ``plan.allocation.solution.stopped`` says "interrupted".

    A forward whose course depends on tensors' values cannot be captured; its parameters are planned
    all the same, and ``emit`` says what stops it.

    Raises:
        ModelSourceError, TraceError, UnsupportedSiteError, BudgetError, InfeasibleBudgetError,
        ConstraintError, ConstraintConflictError, SolveLimitError: see each; all are PlannerError.
    """
    from planner.examples import make_example
    from planner.initializers import initials
    from planner.loading import LoadedModel, load_model
    from planner.tracing import outline, trace
    from planner.tracing.constants import to_buffer

    if evidence != "shape":
        raise PlannerError(f"evidence {evidence!r} is not known: use 'shape'")
    menu = tuple(MENU if generators is None else generators)
    for name in menu:
        if name not in GENERATORS:
            raise PlannerError(f"generator {name!r} is not one of {', '.join(GENERATORS)}")
    # Before the model is built: a file that cannot be read should not cost a trace.
    asked = constraints or ()
    if isinstance(asked, (str, os.PathLike)):
        asked = read_constraints(asked)
    if time_limit is not None and not 0 < time_limit < math.inf:
        raise PlannerError(f"a time limit of {time_limit} seconds: give one above 0")
    spec = ""
    starts: Mapping[str, Initial]
    origins, frozen = None, cast("Mapping[str, Tensor]", {})
    example = None if example_inputs is None else make_example(example_inputs)
    if isinstance(model, str) or _builds(model):
        loaded: LoadedModel = load_model(model, arguments or {}, seed=seed)
        module, starts, spec = loaded.model, loaded.initials, loaded.spec
        origins, frozen = loaded.origins, loaded.frozen
        example = example or loaded.example
    else:
        module, starts = cast("nn.Module", model), initials(cast("nn.Module", model))
        spec = f"{type(model).__module__}.{type(model).__qualname__}"
    if example is None or not example.leaves():
        raise TraceError(
            "the model's inputs are not known: give their shapes with --input 1x3x224x224, or a "
            "callable that returns them with --inputs (example_inputs=... in Python)"
        )
    try:
        program = trace(module, example.args, dict(example.kwargs), verify=verify, origins=origins)
    except TraceError as error:
        if not error.plannable:
            raise
        program = outline(
            module, example.args, dict(example.kwargs), _portable(error), origins=origins
        )
    values = {
        name: to_buffer(
            name.rpartition(".")[2], value, persistent=True, module=name, origins=origins
        )
        for name, value in frozen.items()
    }
    sites = find_sites(module, program, starts, values)
    dense = dense_parameters(sites)
    width = _bytes_per_parameter(module)
    parameters = parse_budget(budget, dense, width)
    rules = resolve(asked, sites, width)
    limits = {} if deterministic_limit is None else {"deterministic_limit": deterministic_limit}
    allocation = allocate(
        sites,
        shape_evidence(sites),
        parameters,
        seed=seed,
        generators=menu,
        rules=rules,
        time_limit=time_limit,
        progress=progress,
        **limits,
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
        constraints=tuple(str(one) for one in asked),
    )


def _builds(model: object) -> bool:
    """Whether ``model`` is no module, but what makes one."""
    from torch import nn

    return callable(model) and not isinstance(model, nn.Module)


def _portable(error: TraceError) -> str:
    """The message with its file as Python would import it, so that it is the same everywhere."""
    place = error.location or ""
    roots = (os.path.join(os.path.abspath(root), "") for root in sys.path)  # noqa: PTH100, PTH118
    root = max((root for root in roots if place.startswith(root)), key=len, default="")
    return str(error).replace(place, place.removeprefix(root)) if root else str(error)


def _bytes_per_parameter(model: nn.Module) -> int:
    return max((p.element_size() for p in model.parameters() if p.requires_grad), default=4)
