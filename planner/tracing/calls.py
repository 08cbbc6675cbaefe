"""How a module is called: which arguments are values of its forward, which are constants."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.fx
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from planner import operations
from planner.ir import Rung
from planner.tracing.extents import Extent, Ratio


@dataclass(frozen=True, slots=True)
class Context:
    """What torch does with the operations of a forward, apart from the forward itself."""

    gradients: bool
    autocast: tuple[bool, ...]

    @classmethod
    def now(cls) -> Context:
        """The present one."""
        autocast = tuple(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda"))
        return cls(torch.is_grad_enabled(), autocast)


@dataclass(frozen=True, slots=True)
class Call:
    """How a module is called: which arguments are values of the forward, which are constants."""

    inputs: tuple[str, ...]
    constants: tuple[tuple[str, object], ...] = ()


@dataclass(slots=True)
class Capture:
    """A module's forward as fx graphs, in training and in evaluation.

    ``constants`` are tensors that the forward reads and no module owns, by the attribute under
    which the graphs read them. ``rung`` says how the graphs were captured.
    """

    call: Call
    train: torch.fx.Graph
    eval: torch.fx.Graph
    constants: dict[str, torch.Tensor] = field(default_factory=dict)
    rung: Rung = "symbolic"


def arguments_of(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Every argument of one call of ``module.forward`` by name, defaults included.

    What ``*args`` and ``**kwargs`` collect has names as well: ``args_0``, and the keyword's own.

    Raises:
        TypeError: the arguments do not fit the signature.
    """
    # Of the module, not of its class: it may have chosen its forward when it was built.
    signature = inspect.signature(module.forward)
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    found: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            found.update({f"{name}_{index}": item for index, item in enumerate(value)})
        elif kind is inspect.Parameter.VAR_KEYWORD:
            found.update(value)
        else:
            found[name] = value
    return found


def bind(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
    """How ``module.forward`` is called: arguments that hold values of a graph are inputs.

    Defaults are applied, so that every argument of the signature is one or the other.

    Raises:
        TypeError: the arguments do not fit the signature.
    """
    inputs: list[str] = []
    constants: list[tuple[str, object]] = []
    for name, value in arguments_of(module, args, kwargs).items():
        if is_computed(value):
            inputs.append(name)
        else:
            constants.append((name, value))
    return Call(tuple(inputs), tuple(constants))


_COMPUTED = (
    torch.Tensor,
    torch.fx.Node,
    torch.fx.Proxy,
    Extent,
    Ratio,
)


def is_computed(value: Any) -> bool:
    """Whether ``value`` is, or holds, something that a graph computes."""
    return isinstance(value, _COMPUTED) or any(map(is_computed, items_of(value).values()))


def items_of(value: Any) -> dict[Any, Any]:
    """What a container of values holds, by index or key; empty for anything else.

    A dataclass is read as a dict of those of its fields that are not None.
    """
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (tuple, list)):
        return dict(enumerate(value))
    fields = getattr(type(value), "__dataclass_fields__", None)
    if fields is not None:
        held = {name: getattr(value, name, None) for name in fields}
        return {name: item for name, item in held.items() if item is not None}
    return {}


def as_graphs(value: Any) -> Any:
    """``value`` as captured graphs hand it on: with dicts for dataclasses and other mappings.

    What holds none of these is itself, so that changes made to it are seen.
    """
    if isinstance(value, PackedSequence):
        return value
    if isinstance(value, (tuple, list)):
        items = [as_graphs(item) for item in value]
        if type(value) is list and all(map(operator.is_, items, value)):
            return value
        return items if isinstance(value, list) else tuple(items)
    held = items_of(value)
    made = {key: as_graphs(item) for key, item in held.items()}
    if type(value) is dict and all(made[key] is value[key] for key in value):
        return value
    return made if held else value


_SHADOWS = frozenset(("F", "Tensor", "math", "nn", "operator", "torch", *operations.BUILTINS))


def input_name(name: str) -> str:
    """``name`` as an argument of an emitted forward, where it may not hide what the body uses."""
    return f"{name}_" if name in _SHADOWS else name


def passed_arguments(
    module: nn.Module, inputs: tuple[str, ...], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Of the arguments of one call of ``module`` those named by ``inputs``.

    Those that were passed by position still are, as far as they come first.
    """
    given = arguments_of(module, args, kwargs)
    leading = list(given)[: len(args)]
    count = 0
    while count < min(len(leading), len(inputs)) and inputs[count] in leading:
        count += 1
    positional = tuple(given[name] for name in inputs[:count])
    return positional, {input_name(name): given[name] for name in inputs[count:]}
