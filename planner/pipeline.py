"""The way through: model → program → sites → evidence → allocation → plan."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from planner.allocation import allocate
from planner.baselines import ALLOCATORS, SOLVER, allocate_by
from planner.budgets import Amount, Limit, the_limit
from planner.constraints import Constraint, Constraints, read_constraints, resolve
from planner.errors import PlannerError, TraceError
from planner.evidence import evidence_source
from planner.ir import GENERATORS, MENU, Allocation, Evidence, Generator, Initial, Program, Site
from planner.plans import Plan
from planner.reconstruction import expected_errors, summary_note, with_errors
from planner.rules import Rule
from planner.sites import dense_parameters, find_sites
from planner.validation import check

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from planner.effort import Progress
    from planner.examples import Inputs


@dataclass(frozen=True, slots=True)
class Subject:
    """What allocators work on: a captured model with its sites and evidence.

    Attributes:
        spec: where the model came from.
        program: the model as it was captured.
        sites: its parameter tensors, each once.
        evidence: which of them may share.
        dense: trainable parameters.
        width: bytes of a trainable parameter, the widest if there are several.
        stored: bytes of what is stored and not trained: frozen parameters, persistent buffers.
        weights: trained matrices of the shareable sites, where a checkpoint is the evidence.
    """

    spec: str
    program: Program
    sites: tuple[Site, ...]
    evidence: Evidence
    dense: int
    width: int
    stored: int
    weights: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def parameters(self, limit: Limit) -> int:
        """The trainable parameters that a limit allows."""
        return limit.parameters(self.dense, self.width, self.stored)


def plan(
    model: nn.Module | str | Callable[..., nn.Module],
    budget: Amount | None = None,
    example_inputs: Inputs | None = None,
    *,
    target_bytes: Amount | None = None,
    max_gradient_bytes: Amount | None = None,
    evidence: str | Evidence = "shape",
    constraints: Constraints | None = None,
    seed: int = 0,
    allocator: str = SOLVER,
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
        target_bytes: in place of ``budget``, what the emitted module's tensors may take when they
            are stored: ``"64MB"`` or a number; frozen parameters and persistent buffers count.
        max_gradient_bytes: in place of ``budget``, what the gradients of a step may take.
        evidence: what groups are made from. ``"shape"`` needs no data; ``"learned:FILE"``, with
            ``,groups=N`` if wanted, is a trained probe's state dict (:func:`planner.probe`), and
            ``"gradient:FILE"`` what its recorder saved; ``"checkpoint:FILE"`` is a trained state
            dict of this model: each generated site then says in its reason how far it will be from
            it after ``load_dense_state_dict``. Or groups in themselves.
        constraints: what the allocation must keep to: a sequence of ``planner.constraints``
            objects, or the path of a TOML or JSON file of them.
        seed: seeds the model's construction and the hash generators.
        allocator: ``"cp-sat"``, the solver, or one of ``planner.baselines.BASELINES``.
        generators: the menu of generators; by default all but ``"tie"``. Baselines have their own.
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

    Where parameters have several dtypes, each counts as the widest of them against a limit in
    bytes. A forward whose course depends on tensors' values cannot be captured; its parameters are
    planned all the same, and ``emit`` says what stops it.

    Raises:
        ModelSourceError, TraceError, UnsupportedSiteError, BudgetError, InfeasibleBudgetError,
        ConstraintError, ConstraintConflictError, EvidenceError, SolveLimitError: see each; all
            are PlannerError.
    """
    if time_limit is not None and not 0 < time_limit < math.inf:
        raise PlannerError(f"a time limit of {time_limit} seconds: give one above 0")
    limit = the_limit(budget, target_bytes, max_gradient_bytes)
    check_allocator(allocator)
    menu = menu_of(generators)
    if generators is not None and allocator != SOLVER:
        raise PlannerError(
            f"the allocator {allocator!r} has generators of its own: leave generators out"
        )
    # Before the model is built: a file that cannot be read should not cost a trace.
    asked = constraints_of(constraints)
    if asked and allocator != SOLVER:
        raise PlannerError(
            f"the allocator {allocator!r} keeps no constraints: leave them out, or use {SOLVER!r}"
        )
    subject = prepare(
        model, example_inputs, evidence=evidence, seed=seed, arguments=arguments, verify=verify
    )
    parameters = subject.parameters(limit)
    allocation = allocated(
        subject,
        parameters,
        allocator,
        menu=menu,
        seed=seed,
        rules=resolve(asked, subject.sites, subject.width),
        deterministic_limit=deterministic_limit,
        time_limit=time_limit,
        progress=progress,
    )
    check(subject.sites, allocation)
    notes: tuple[str, ...] = ()
    if subject.weights:
        errors = expected_errors(subject.sites, allocation, subject.weights)
        allocation = with_errors(allocation, errors)
        notes = (summary_note(errors, subject.weights, subject.evidence.source),)
    return Plan(
        spec=subject.spec,
        seed=seed,
        evidence=subject.evidence.source,
        budget=limit.text,
        budget_parameters=parameters,
        dense_parameters=subject.dense,
        program=subject.program,
        sites=subject.sites,
        allocation=allocation,
        notes=notes,
        constraints=tuple(str(one) for one in asked),
    )


def prepare(
    model: nn.Module | str | Callable[..., nn.Module],
    example_inputs: Inputs | None = None,
    *,
    evidence: str | Evidence = "shape",
    seed: int = 0,
    arguments: Mapping[str, object] | None = None,
    verify: bool = True,
) -> Subject:
    """Capture a model and gather evidence: all that comes before a budget. See :func:`plan`.

    Raises:
        ModelSourceError, TraceError, UnsupportedSiteError, EvidenceError: see each; all are
            PlannerError.
    """
    from planner.examples import make_example
    from planner.initializers import initials
    from planner.loading import LoadedModel, load_model
    from planner.tracing import outline, trace
    from planner.tracing.constants import to_buffer

    # First, as a file that cannot be read should not cost a trace.
    gather = evidence_source(evidence)
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
    gathered, weights = gather(sites)
    return Subject(
        spec=spec,
        program=program,
        sites=sites,
        evidence=gathered,
        dense=dense_parameters(sites),
        width=_bytes_per_parameter(module),
        stored=_stored(module),
        weights=weights,
    )


def allocated(
    subject: Subject,
    parameters: int,
    allocator: str,
    *,
    menu: tuple[Generator, ...] = MENU,
    seed: int = 0,
    rules: Sequence[Rule] = (),
    deterministic_limit: float | None = None,
    time_limit: float | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Allocation:
    """The allocation of ``parameters`` that the solver or a rule makes.

    Raises:
        InfeasibleBudgetError, SolveLimitError: see each.
    """
    sites, evidence = subject.sites, subject.evidence
    if allocator != SOLVER:
        return allocate_by(allocator, sites, evidence, parameters, seed=seed)
    return allocate(
        sites,
        evidence,
        parameters,
        seed=seed,
        generators=menu,
        rules=rules,
        time_limit=time_limit,
        progress=progress,
        deterministic_limit=deterministic_limit,
    )


def constraints_of(constraints: Constraints | None) -> Sequence[Constraint]:
    """The constraints that are asked for, read if they are in a file.

    Raises:
        ConstraintError: the file cannot be read or is not of the form.
    """
    if isinstance(constraints, (str, os.PathLike)):
        return read_constraints(constraints)
    return constraints or ()


def menu_of(generators: Sequence[Generator] | None) -> tuple[Generator, ...]:
    """The menu that is asked for, by default all generators but ``"tie"``.

    Raises:
        PlannerError: it names what is no generator.
    """
    menu = tuple(MENU if generators is None else generators)
    for name in menu:
        if name not in GENERATORS:
            raise PlannerError(f"generator {name!r} is not one of {', '.join(GENERATORS)}")
    return menu


def check_allocator(name: str) -> None:
    """Raises a PlannerError if there is no allocator of that name."""
    if name not in ALLOCATORS:
        raise PlannerError(f"allocator {name!r} is not one of {', '.join(ALLOCATORS)}")


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


def _stored(model: nn.Module) -> int:
    """Bytes of the state dict that hold no trainable parameter, each tensor once."""
    trained = {id(one) for one in model.parameters() if one.requires_grad}
    held = model.state_dict(keep_vars=True).values()
    rest = {id(one): one for one in held if id(one) not in trained and hasattr(one, "nbytes")}
    return sum(one.nbytes for one in rest.values())
