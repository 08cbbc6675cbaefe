"""Which sizes of the inputs, apart from the batch, captured graphs serve; others are refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from planner.errors import TraceError
from planner.tracing.calls import Capture, arguments_of
from planner.tracing.forwards import location_of
from planner.tracing.guards import Served, Shapes, guard, guard_inputs, shapes_in
from planner.tracing.resizing import Group, groups, resized

Changes = Sequence[tuple[Group, int]]
"""Groups of sizes of the inputs, and what they are to be."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a model: the error that it raises itself, and the module that refuses its sizes.

    Where that has no check to do so, ``told`` says how it differs, at arguments of ``shapes``.
    """

    raised: str | None
    fixed: str | None
    shapes: Shapes = field(default_factory=dict)
    told: str | None = None


def at_other_sizes(
    run: Callable[..., Run],
    inputs: tuple[tuple[Any, ...], dict[str, Any]],
    size: int,
    modes: list[bool],
) -> tuple[list[Group], dict[Group, str]]:
    """Sizes of the inputs, apart from the batch, that are free; and those that a module fixes.

    ``run`` takes the inputs, their batch, whether to train, and changes of sizes.
    """
    free: dict[Group, int] = {}
    fixed: dict[Group, str] = {}

    def settled(group: Group) -> bool:
        """Try one group; False if the model takes no other size."""
        for new in group.sizes():
            if new < 1:
                continue
            done = run(inputs, size, modes[0], [(group, new)])
            if done.raised is not None:
                continue
            if done.fixed is None:
                free[group] = new
            else:
                fixed[group] = done.fixed
            return True
        return False

    for group in groups(inputs):
        whole = settled(group)
        # An image's height and width, or what has the same size in the example by chance.
        for part in group.parts()[1:] if whole else group.parts():
            settled(part)
    if free:
        for training in modes:
            run(inputs, size, training, list(free.items()))
    return list(free), fixed


def guard_all(
    model: nn.Module,
    captures: Mapping[str, Capture],
    served: Served,
    failures: Sequence[tuple[Run, Changes]],
    inputs: tuple[tuple[Any, ...], dict[str, Any]],
    free: list[Group],
    fixed: dict[Group, str],
) -> None:
    """Guard what differed in the runs of ``failures``, each with its changes of ``inputs``.

    What had to be guarded at the model's inputs is fixed, though it may be free by itself.

    Raises:
        TraceError: no axis tells the sizes apart.
    """
    for done, changes in failures:
        if _guarded(model, captures, served, done, inputs, changes):
            continue
        changed = {axis for group, _ in changes for axis in group.axes}
        for group in [one for one in free if changed & {*one.axes}]:
            free.remove(group)
            fixed[group] = str(done.fixed)


def _guarded(
    model: nn.Module,
    captures: Mapping[str, Capture],
    served: Served,
    done: Run,
    inputs: tuple[tuple[Any, ...], dict[str, Any]],
    changes: Changes,
) -> bool:
    """Guard the module that differed in a run; False if the root's inputs had to be guarded.

    Raises:
        TraceError: neither can be; names the module.
    """
    path = str(done.fixed)
    if guard(captures[path], done.shapes, served):
        return True
    other = resized(inputs, changes)
    own, changed = (shapes_in(arguments_of(model, *given)) for given in (inputs, other))
    if "" in captures and guard_inputs(captures[""], own, changed):
        return False
    module = model.get_submodule(path)
    location = location_of(module)
    raise TraceError(
        f"module {path!r} ({type(module).__name__}) takes the example's sizes into its forward "
        f"where nothing shows it: at others its graph {done.told}\n"
        f"  at {location}\n"
        "  Compute with sizes of tensors by torch's functions and Python's operators alone.",
        module=path,
        location=location,
        plannable=True,
    )


def names(free: Sequence[Group]) -> tuple[str, ...]:
    """What is free, in words; what is so together and in part is free part by part."""
    parted = {group: group.parts() for group in free if {*group.parts()[1:]} & {*free}}
    inner = {part for parts in parted.values() for part in parts}
    return tuple(
        part.name
        for group in free
        if group not in inner
        for part in (parted.get(group) or (group,))
    )
