"""Example inputs: what a model is called with while it is captured."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from planner.errors import PlannerError
from planner.ir import TensorSpec

# One tensor, positional inputs, keyword inputs, both, or what returns one of these.
Inputs: TypeAlias = (
    "torch.Tensor | TensorSpec | str | Sequence[object] | Mapping[str, object] | Example"
    " | Callable[[], object]"
)

_DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
_SPEC = re.compile(r"(?:[A-Za-z_]\w*:)?[0-9]+(?:x[0-9]+)*|[0-9]+(?:x[0-9]+)*:[A-Za-z_]\w*")
_KEYWORD = re.compile(r"([^\W\d]\w*)=(.*)", re.DOTALL)
_LITERALS: dict[str, bool | None] = {"None": None, "True": True, "False": False}
_FORMS = "write 1x3x224x224, int64:2x128, None, True or 0.5"


@dataclass(frozen=True, slots=True)
class Example:
    """The arguments of one call of a model's ``forward``.

    Values are nested tuples, lists and dicts with string keys; their leaves are tensors,
    :class:`~planner.ir.TensorSpec` for tensors yet to be made, and literals: None, bool, int,
    float, str.
    """

    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, *args: object, **kwargs: object) -> Example:
        """The call ``forward(*args, **kwargs)``."""
        return cls(args, tuple(kwargs.items()))

    def leaves(self) -> tuple[Any, ...]:
        """Tensors and literals, positional ones first, in order."""
        values = (*self.args, *(value for _, value in self.kwargs))
        return tuple(leaf for value in values for leaf in _leaves(value))

    def map(self, change: Callable[[Any], Any]) -> Example:
        """The same call with every leaf changed."""
        return Example(
            tuple(_map(value, change) for value in self.args),
            tuple((name, _map(value, change)) for name, value in self.kwargs),
        )


def make_example(given: object) -> Example:
    """What a user gives as inputs, as an example with tensors in it.

    A tensor is the one positional input, a sequence holds positional inputs and a mapping keyword
    inputs; a callable returns any of these. Wherever a tensor may stand, so may a ``TensorSpec`` or
    a text such as ``int64:2x128``; other texts are literals.

    Raises:
        PlannerError: something else is among them, or a tensor that cannot be made.
    """
    if isinstance(given, Example):
        example = given
    elif isinstance(given, (torch.Tensor, TensorSpec, str)):
        example = Example((given,))
    elif isinstance(given, Mapping):
        for name in given:
            if not (isinstance(name, str) and name.isidentifier()):
                raise PlannerError(f"{name!r} is not the name of an input")
        example = Example((), tuple(given.items()))
    elif isinstance(given, Sequence):
        example = Example(tuple(given))
    elif callable(given):
        return make_example(given())
    else:
        raise PlannerError(
            f"example inputs are a {type(given).__name__}: give a tensor, a sequence of positional "
            "inputs or a mapping of keyword inputs"
        )
    checked = Example(
        tuple(_checked(value, f"input {index}") for index, value in enumerate(example.args)),
        tuple((name, _checked(value, f"input {name!r}")) for name, value in example.kwargs),
    )
    # Of its own generator, so that examples are equal from run to run; one for all of an example,
    # so that no two of its tensors are equal.
    generator = torch.Generator().manual_seed(0)
    return checked.map(lambda leaf: _made(leaf, generator))


def parse_inputs(texts: Sequence[str]) -> Example:
    """Each of ``texts`` as an input: ``2x3x32x32``, or ``name=int64:2x128`` for a keyword.

    Raises:
        PlannerError: a text of another form, or a name given twice.
    """
    args: list[object] = []
    kwargs: dict[str, object] = {}
    for text in texts:
        if named := _KEYWORD.fullmatch(text.strip()):
            name, value = named.groups()
            if name in kwargs:
                raise PlannerError(f"input {name!r} is given twice")
            kwargs[name] = parse_input(value)
        else:
            args.append(parse_input(text))
    return Example.of(*args, **kwargs)


def parse_input(text: str) -> TensorSpec | bool | float | str | None:
    """``"1x3x224x224"``, ``"int64:2x128"`` (also ``"2x128:int64"``), or a literal.

    Literals are None, True, False, a number with a point, and a text in quotation marks; a whole
    number is the shape of a vector.

    Raises:
        PlannerError: not of this form, or an unknown dtype.
    """
    text = text.strip()
    if text in _LITERALS:
        return _LITERALS[text]
    if re.fullmatch(r"[+-]?[0-9]*\.[0-9]+(e[+-]?[0-9]+)?", text):
        return float(text)
    if re.fullmatch(r"'[^']*'|\"[^\"]*\"", text):
        return text[1:-1]
    if not _SPEC.fullmatch(text):
        raise PlannerError(f"{text!r} is not an input: {_FORMS}")
    return _spec(text)


def _spec(text: str) -> TensorSpec:
    left, separator, right = text.partition(":")
    if not separator:
        left, right = "float32", left
    shape, dtype = (left, right) if left[0].isdigit() else (right, left)
    if dtype not in _DTYPES:
        raise PlannerError(f"{dtype!r} in {text!r} is not a dtype: write float32, int64 or bool")
    sizes = shape.split("x")
    if max(map(len, sizes)) > 9:
        raise PlannerError(f"{text!r} is too large for an example input")
    # An alias ("long") becomes the dtype's own name.
    name = str(_DTYPES[dtype]).removeprefix("torch.")
    return TensorSpec(tuple(map(int, sizes)), name)


def _checked(value: object, place: str) -> object:
    """``value`` as nested tuples, lists and dicts of what may be a leaf."""
    if isinstance(value, str):
        return _spec(value) if _SPEC.fullmatch(value) else value
    if value is None or isinstance(value, (bool, int, float, torch.Tensor, TensorSpec)):
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise PlannerError(f"{place} has the key {key!r}: keys of a mapping are texts")
        return {key: _checked(item, f"{place}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        items = [_checked(item, f"{place}[{index}]") for index, item in enumerate(value)]
        return _like(value, items)
    raise PlannerError(
        f"{place} is a {type(value).__name__}: give tensors, None, bools, numbers, texts, or "
        "tuples, lists and dicts of them"
    )


def _made(leaf: Any, generator: torch.Generator) -> Any:
    """A tensor for a ``TensorSpec``: noise, or zeros, which are indices of any table, or True."""
    if not isinstance(leaf, TensorSpec):
        return leaf
    dtype = _DTYPES[leaf.dtype]
    try:
        if dtype == torch.bool:
            return torch.ones(leaf.shape, dtype=dtype)
        if dtype.is_floating_point or dtype.is_complex:
            return torch.randn(leaf.shape, generator=generator).to(dtype)
        return torch.zeros(leaf.shape, dtype=dtype)
    except (RuntimeError, MemoryError) as error:
        shape = "x".join(map(str, leaf.shape))
        raise PlannerError(
            f"an example input {leaf.dtype}:{shape} cannot be made: give a smaller one"
        ) from error


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _map(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {key: _map(item, change) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return _like(value, [_map(item, change) for item in value])
    return change(value)


def _like(value: tuple[Any, ...] | list[Any], items: list[Any]) -> Any:
    """``items`` in a sequence of the type of ``value``."""
    if isinstance(value, tuple):
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return items
