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
from torch.autograd import Function


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
def uncached() -> Iterator[None]:
    """Inside, functions of modules that remember their results compute them anew.

    What they remember may be a size or a tensor of another run. Those of Python's own library and
    of torch know nothing of a model.
    """
    apart = (*sys.stdlib_module_names, "torch", "planner")
    changed: list[tuple[dict[str, Any], str, Any]] = []
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in apart and name != "__main__":
            continue
        names = getattr(module, "__dict__", {})
        for key, value in list(names.items()):
            if type(value) is _CACHED:
                changed.append((names, key, value))
                names[key] = _computing(value)
    try:
        yield
    finally:
        for names, key, value in changed:
            names[key] = value


_CACHED = type(functools.lru_cache(lambda: None))


def _computing(cached: Any) -> Callable[..., Any]:
    @functools.wraps(cached)
    def compute(*args: Any, **kwargs: Any) -> Any:
        if all(isinstance(one, (str, bool, type(None))) for one in (*args, *kwargs.values())):
            return cached(*args, **kwargs)  # such as whether a library is there
        return cached.__wrapped__(*args, **kwargs)

    compute.__dict__.update(cache_clear=cached.cache_clear, cache_info=cached.cache_info)
    return compute


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
