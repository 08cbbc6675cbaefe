"""What Python and torch do past a function mode, made visible while a run is recorded."""

from __future__ import annotations

import builtins
import functools
import logging
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.autograd import Function, Variable
from torch.distributions import Distribution


@contextmanager
def calls(called: Callable[..., Any]) -> Iterator[None]:
    """Inside, every call of a module goes through ``called``."""
    plain = nn.Module.__call__

    def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return called(module, args, kwargs, plain)

    nn.Module.__call__ = call  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__call__ = plain  # type: ignore[method-assign]


@contextmanager
def applications(applied: Callable[..., Any]) -> Iterator[None]:
    """Inside, every use of a function with a backward of its own goes through ``applied``."""
    plain = Function.__dict__["apply"]

    def apply(function: type[Function], *args: Any) -> Any:
        return applied(function, args, plain.__get__(None, function))

    Function.apply = classmethod(apply)
    try:
        yield
    finally:
        Function.apply = plain


@contextmanager
def wholes(functions: Iterable[Callable[..., Any]], called: Callable[..., Any]) -> Iterator[None]:
    """Inside, every call of ``functions``, which torch wrote in Python, goes through ``called``.

    Models import such functions by name, so that it is their code that is replaced.
    """
    changed: list[Any] = list(functions)
    plain = [_parts(function) for function in changed]
    try:
        for function, parts in zip(changed, plain, strict=True):
            run = types.FunctionType(parts[0], function.__globals__, function.__name__, parts[1])
            hook = functools.partial(called, function, run)
            _change(function, (_through.__code__, None, {"through": hook}))
        yield
    finally:
        for function, parts in zip(changed, plain, strict=True):
            _change(function, parts)


def _through(*args: Any, through: Callable[..., Any], **kwargs: Any) -> Any:
    return through(args, kwargs)


def _parts(function: Any) -> tuple[Any, Any, Any]:
    return function.__code__, function.__defaults__, function.__kwdefaults__


def _change(function: Any, parts: tuple[Any, Any, Any]) -> None:
    function.__code__, function.__defaults__, function.__kwdefaults__ = parts


@contextmanager
def lengths() -> Iterator[None]:
    """Inside, ``len`` of a tensor is its first size, which Python would make a plain number."""
    plain = builtins.len

    def length(value: Any) -> int:
        return value.shape[0] if isinstance(value, torch.Tensor) and value.ndim else plain(value)

    builtins.len = length
    try:
        yield
    finally:
        builtins.len = plain


@contextmanager
def unchecked() -> Iterator[None]:
    """Inside, distributions are made without a look at the values of their parameters."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


@contextmanager
def uncached() -> Iterator[None]:
    """Inside, functions that keep their results compute them again, but for those of mere names.

    A kept result may be a size or a tensor of another run.
    """
    found = _caches(len(sys.modules))
    for module, name, kept in found:
        setattr(module, name, _recomputed(kept))
    try:
        yield
    finally:
        for module, name, kept in found:
            setattr(module, name, kept)


def _recomputed(kept: Any) -> Callable[..., Any]:
    @functools.wraps(kept)
    def function(*args: Any, **kwargs: Any) -> Any:
        if all(isinstance(one, (str, bool, type(None))) for one in (*args, *kwargs.values())):
            return kept(*args, **kwargs)  # such as whether a library is there
        return kept.__wrapped__(*args, **kwargs)

    function.__dict__.update(cache_clear=kept.cache_clear, cache_info=kept.cache_info)
    return function


@functools.lru_cache(maxsize=1)
def _caches(_modules: int) -> list[tuple[types.ModuleType, str, Any]]:
    """(module, name, function) of the functions with a cache that a forward may call.

    The argument is their number: when more are imported, they are searched as well.
    """
    return [
        (module, name, value)
        for path, module in list(sys.modules.items())
        if path.partition(".")[0] not in _BENEATH
        for name, value in list(getattr(module, "__dict__", {}).items())
        if type(value) is _Cache
    ]


_Cache = type(functools.lru_cache(len))
# Their functions are not recorded, so they see plain numbers.
_BENEATH = frozenset((*sys.stdlib_module_names, "torch", __name__.partition(".")[0])) - {"__main__"}


@contextmanager
def variables() -> Iterator[None]:
    """Inside, a tensor wrapped in the ``Variable`` of old is detached by a function that shows."""
    plain = Variable.__new__

    def detached(_kind: type, data: torch.Tensor, requires_grad: bool = False, **_: Any) -> Any:
        made = data.detach()
        return made.requires_grad_() if requires_grad else made

    Variable.__new__ = detached  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Variable.__new__ = plain  # type: ignore[method-assign]


@contextmanager
def as_written() -> Iterator[None]:
    """Inside, functions that torch compiled run as the Python that they were compiled from."""
    scripted: Any = torch.jit.ScriptFunction
    plain = scripted.__call__

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        written = getattr(function, "_torchdynamo_inline", None)
        return plain(function, *args, **kwargs) if written is None else written(*args, **kwargs)

    scripted.__call__ = call
    try:
        # Unless that is loaded, nothing was compiled; loading it takes a second.
        if "torch._dynamo" in sys.modules:
            with torch.compiler.set_stance("force_eager"):
                yield
        else:
            yield
    finally:
        scripted.__call__ = plain


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, torch does not log the errors of fake operations, which it raises as well."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
