"""The operations that a program may contain, by public name.

A plan is data from strangers, so a forward is a list of names from this allow-list and literals.
torch's functions and methods are those that torch itself lists as overridable (they take tensors
and return values), plus the factories below; Python's are listed one by one.
"""

from __future__ import annotations

import builtins
import functools
import math
import operator
from collections.abc import Callable

FACTORIES = (
    "arange empty empty_like eye finfo full full_like iinfo linspace logspace ones ones_like rand "
    "rand_like randint randn randn_like randperm tensor zeros zeros_like"
).split()
# Functions that torch does not list as overridable, though they are public.
NEWER = ("grouped_mm",)
OPERATORS = (
    "add and_ contains eq floordiv ge getitem gt iadd iand ifloordiv ilshift imatmul imod imul "
    "ior ipow irshift isub itruediv invert is_ is_not ixor le lshift lt matmul mod mul ne neg "
    "not_ or_ pos pow rshift setitem sub truediv xor"
).split()
BUILTINS = "abs bool float getattr int len max min round sum tuple list".split()
ATTRIBUTES = (
    "H T device dtype imag is_complex is_cpu is_cuda is_floating_point itemsize layout mH mT max "
    "min ndim real requires_grad shape"
).split()

# What an emitted file calls its own, beside its imports and what Python has built in.
_OWN = (
    "ALIASES BANKS Bank FROZEN GENERATED Generator Hash Interpolate Link LowRank Mix Mixed PLAN "
    "Recurrent SITES Source Target Tie Tile attach build elements fit generated initialise install "
    "linked locate matrix reset_kept ring solve tensor unpack"
).split()
_IMPORTED = (
    "annotations Any F Iterator Mapping OrderedDict Tensor base64 dataclass math nn operator "
    "partial torch zlib"
).split()

_TORCH_NAMESPACES = ("torch", "torch.nn.functional", "torch.linalg", "torch.fft", "torch.special")
_METHODS = (
    "bool byte char clone contiguous cpu detach dim double expand float half int item long "
    "new_empty new_full new_ones new_tensor new_zeros numel permute requires_grad_ reshape short "
    "size to tolist type_as unbind unflatten view"
).split()
# Methods that reach beyond the values of a forward.
_FORBIDDEN = (
    "apply_ backward map2_ map_ module_load numpy register_hook register_post_accumulate_grad_hook "
    "share_memory_ storage untyped_storage"
).split()


@functools.cache
def _names() -> dict[str, object]:
    """Every allowed function, by public name."""
    import torch
    import torch.overrides

    overridable = torch.overrides.get_overridable_functions()
    names: dict[str, object] = {}
    for namespace, functions in overridable.items():
        qualified = getattr(namespace, "__name__", "")
        if qualified not in (*_TORCH_NAMESPACES, "torch.functional"):
            continue
        # What torch.functional defines is public as torch.NAME.
        public = "torch" if qualified == "torch.functional" else qualified
        known = {id(function) for function in functions}
        plain = {getattr(function, "__name__", "") for function in functions}
        for name in dir(namespace):
            # What torch.linalg calls norm is called linalg_norm by itself.
            value = getattr(namespace, name)
            if not name.startswith("_") and (name in plain or id(value) in known):
                names[f"{public}.{name}"] = value
    functional = torch.nn.functional
    names.update({f"torch.nn.functional.{name}": getattr(functional, name) for name in NEWER})
    names.update({f"torch.{name}": getattr(torch, name) for name in FACTORIES})
    names.update({f"operator.{name}": getattr(operator, name) for name in OPERATORS})
    names.update({f"builtins.{name}": getattr(builtins, name) for name in BUILTINS})
    names.update(
        {
            f"math.{name}": getattr(math, name)
            for name in dir(math)
            if callable(getattr(math, name)) and not name.startswith("_")
        }
    )
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


@functools.cache
def _methods() -> frozenset[str]:
    import torch
    import torch.overrides

    overridable = torch.overrides.get_overridable_functions()[torch.Tensor]
    listed = {getattr(method, "__name__", "") for method in overridable}
    return frozenset(
        name
        for name in (*listed, *_METHODS, "__getitem__", "__setitem__")
        if name and name not in _FORBIDDEN and (not name.startswith("_") or name.endswith("item__"))
    )


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
    return name in _names()


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
    return name in _methods()


def is_reserved(name: str) -> bool:
    """Whether an emitted file needs ``name`` for itself, so that no model's class can have it."""
    return name in (*_OWN, *_IMPORTED) or hasattr(builtins, name) or name.startswith("Generated")


def is_layer(name: str) -> bool:
    """Whether ``name`` is a module of ``torch.nn`` that is no container."""
    from torch import nn

    found = getattr(nn, name, None)
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
    return isinstance(found, type) and issubclass(found, nn.Module) and found not in containers


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
