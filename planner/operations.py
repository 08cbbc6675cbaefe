"""The operations that a program may contain, by public name.

A plan is data from strangers, so a forward is a list of names from this allow-list and literals.
torch's part of it is a file, ``operations.txt``, so that a plan means the same under any version of
torch, and reading or emitting one does not import torch; Python's part is listed here.
"""

from __future__ import annotations

import builtins
import functools
import math
import operator
from collections.abc import Callable
from pathlib import Path

OPERATORS = (
    "add and_ contains eq floordiv ge getitem gt iadd iand ifloordiv ilshift imatmul imod imul "
    "ior ipow irshift isub itruediv invert is_ is_not ixor le lshift lt matmul mod mul ne neg "
    "not_ or_ pos pow rshift setitem sub truediv xor"
).split()
BUILTINS = "abs bool float getattr int len max min round sum tuple list".split()
CHECK = "torch._check"
"""What stops a forward where its argument is False."""

ATTRIBUTES = (
    "H T device dtype imag is_complex is_cpu is_cuda is_floating_point itemsize layout mH mT max "
    "min ndim real requires_grad shape "
    # Results of several tensors have fields: ``x.max(dim=1).values``.
    "L LD LU P Q R S U V Vh bin_edges eigenvalues eigenvectors exponent hist indices info inverse "
    "logabsdet mantissa pivots rank residuals sign singular_values solution values"
).split()

# What an emitted file calls its own, beside its imports and what Python has built in.
_OWN = (
    "ALIASES BANKS Bank Blend FROZEN GENERATED Generator GradientRecorder Hash Interpolate Link "
    "LowRank Mix Mixed PLAN Recurrent SITES Source Target Tie Tile attach build "
    "elements fit generated initialise install linked locate matrix reset_kept "
    "ring stored tensor unpack"
).split()
_IMPORTED = (
    "annotations Any F Iterator Mapping OrderedDict Path Tensor base64 copy dataclass hashlib json "
    "math nn operator partial torch zlib"
).split()

_LISTED = Path(__file__).with_name("operations.txt")


@functools.cache
def _listed() -> frozenset[str]:
    """Torch's part of the list: functions by public name, methods as .NAME, layers as nn.NAME."""
    return frozenset(_LISTED.read_text(encoding="ascii").split())


@functools.cache
def _allowed() -> frozenset[str]:
    """Every allowed function, by public name."""
    numbers = (name for name in dir(math) if not name.startswith("_"))
    return frozenset(
        (
            *(name for name in _listed() if name.startswith("torch.")),
            *(f"operator.{name}" for name in OPERATORS),
            *(f"builtins.{name}" for name in BUILTINS),
            CHECK,
            *(f"math.{name}" for name in numbers if callable(getattr(math, name))),
        )
    )


@functools.cache
def _names() -> dict[str, object]:
    """The allowed functions that this version of torch has, by public name."""
    import torch

    spaces = {"torch": torch, "operator": operator, "builtins": builtins, "math": math}
    names: dict[str, object] = {}
    for name in sorted(_allowed()):
        space, *path = name.split(".")
        found: object = spaces[space]
        for part in path:
            found = getattr(found, part, None)
        if found is not None:
            names[name] = found
    return names


@functools.cache
def _by_identity() -> dict[int, str]:
    found: dict[int, str] = {}
    # Functional names first: F.relu reads better than torch.relu where both are one object.
    for name, function in sorted(
        _names().items(), key=lambda item: (".functional." not in item[0], item[0])
    ):
        found.setdefault(id(function), name)
    found[id(operator.abs)] = "builtins.abs"
    return found


def public_name(function: Callable[..., object]) -> str | None:
    """The allowed name under which ``function`` is public, or None."""
    found = _by_identity().get(id(function))
    if found is not None:
        return found
    # Dispatching functions hand over an inner function that carries the public one's name.
    name = getattr(function, "__name__", "")
    module = getattr(function, "__module__", "") or ""
    if module.startswith("torch"):
        for namespace in ("torch.nn.functional", "torch"):
            if f"{namespace}.{name}" in _names():
                return f"{namespace}.{name}"
    return None


def is_function(name: str) -> bool:
    """Whether ``name`` is an allowed function."""
    return name in _allowed()


def function(name: str) -> Callable[..., object]:
    """The allowed function of that name.

    Raises:
        KeyError: there is none.
    """
    found = _names()[name]
    if not callable(found):
        raise KeyError(name)
    return found


def is_method(name: str) -> bool:
    """Whether ``name`` is an allowed method of ``torch.Tensor``."""
    return f".{name}" in _listed()


def is_reserved(name: str) -> bool:
    """Whether an emitted file needs ``name`` for itself, so that no model's class can have it."""
    return name in (*_OWN, *_IMPORTED) or hasattr(builtins, name) or name.startswith("Generated")


def is_layer(name: str) -> bool:
    """Whether ``name`` is a module of ``torch.nn`` that is no container."""
    return f"nn.{name}" in _listed()


def is_in_place(op: str, target: str, kwargs: tuple[tuple[str, object], ...]) -> bool:
    """Whether an operation changes its first argument."""
    name = target.rpartition(".")[2]
    if op == "method":
        return name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
    if target.startswith("operator."):
        return name == "setitem" or (
            name.startswith("i") and name not in ("invert", "is_", "is_not")
        )
    return (name.endswith("_") and op == "function") or dict(kwargs).get("inplace") is True
