"""Models and inputs from specifications: the only stage that runs what a user names."""

from __future__ import annotations

import json
import random
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from planner.errors import ModelSourceError, PlannerError
from planner.examples import Example, make_example
from planner.initializers import initials, recording, unknown
from planner.ir import Initial
from planner.libraries import Source
from planner.origins import Origins
from planner.sources import find_object, find_source, importable, name_of

# Up to this many parameters a model is built a second time, with values, to measure what no
# operation told; beyond it, memory matters more.
_MEASURABLE = 50_000_000

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A built model and what its initialiser does to each parameter, once per tensor.

    ``weights`` says whether the parameters hold values; else they are on the meta device.
    ``example`` has the inputs that the specification or its library offers, if any; ``origins``
    how the model's other tensors came about; ``frozen`` the values of parameters that are not
    trained and have the same values in every build, such as tables of positions.
    """

    model: nn.Module
    initials: dict[str, Initial]
    spec: str
    weights: bool
    example: Example | None = None
    origins: Origins | None = None
    frozen: Mapping[str, torch.Tensor] = field(default_factory=dict)


def load_model(
    spec: str | Callable[..., object],
    arguments: Mapping[str, object] | None = None,
    *,
    seed: int = 0,
) -> LoadedModel:
    """Build the model that ``spec`` names, its parameters on the meta device where possible.

    ``spec`` is ``package.module:callable``, ``path/to/file.py:callable`` (a module class, a factory
    or a module; attribute paths work), ``torchvision:NAME``, ``timm:NAME`` or ``hf:CONFIG.json``,
    or a callable itself; ``arguments`` are its keyword arguments. Random generators are seeded for
    the build and restored after it, as are the default dtype and the gradient mode.

    A model that reads its parameters' values while it is built is built plainly, with real ones.

    Raises:
        ModelSourceError: nothing there, or what is there builds no module that can be planned.
    """
    name = name_of(spec)
    with _undisturbed(seed), _blaming(f"{name} cannot be built"), Origins() as origins:
        source = find_source(spec, dict(arguments or {}))
        with importable(source.folder):
            model, found = _build(name, source, seed)
            frozen = _frozen(name, source, seed, model, found)
            example = source.example(model) if source.example else _offered(model, source.offers)
    weights = not any(parameter.is_meta for parameter in model.parameters())
    return LoadedModel(model, found, name, weights, example, origins, frozen)


def load_inputs(spec: str, *, seed: int = 0) -> Example:
    """The inputs that a Python object holds, or returns if it can be called.

    ``spec`` is ``package.module:name`` or ``path/to/file.py:name``; see
    :func:`~planner.examples.make_example` for what may be there.

    Raises:
        PlannerError: nothing there, or no inputs.
    """
    with _undisturbed(seed), _blaming(f"inputs {spec} cannot be made"):
        found = find_object(spec)
        with importable(found.folder):
            return make_example(found.value)


def parse_arguments(texts: Sequence[str]) -> dict[str, object]:
    """``["depth=28", "name=wide"]`` as keyword arguments.

    Values are JSON, or Python's True, False and None; anything else is a string.

    Raises:
        ModelSourceError: no ``=``, a key that is no identifier, or a key given twice.
    """
    found: dict[str, object] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key.isidentifier():
            raise ModelSourceError(f"{text!r} is not an argument: write key=value")
        if key in found:
            raise ModelSourceError(f"argument {key!r} is given twice")
        found[key] = _literal(value)
    return found


def _literal(text: str) -> object:
    python: dict[str, object] = {"True": True, "False": False, "None": None}
    if text in python:
        return python[text]
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(text: str) -> object:
    raise ValueError(text)


def _build(spec: str, source: Source, seed: int) -> tuple[nn.Module, dict[str, Initial]]:
    """The model, on the meta device if that leaves it whole, and its initials."""
    try:
        _seed(seed)
        with recording() as record:
            built = source.build()
    except Exception:  # noqa: BLE001  whatever it is, a plain build either works or shows it again
        real = _plainly(spec, source, seed)
        return real, initials(real)
    model = _checked(spec, built)
    found, names = initials(model, record), set(unknown(model, record))
    whole = not any(_values_missing(module) for module in model.modules())
    small = sum(one.numel() for one in model.parameters()) <= _MEASURABLE
    if whole and not (names and small):
        return model, found
    real = _plainly(spec, source, seed)
    values = initials(real)
    if list(values) == list(found):
        values = {name: values[name] if name in names else found[name] for name in found}
    elif whole:
        values = found
    return (model if whole else real), values


def _plainly(spec: str, source: Source, seed: int) -> nn.Module:
    _seed(seed)
    return _checked(spec, source.build())


def _frozen(
    spec: str, source: Source, seed: int, model: nn.Module, found: Mapping[str, Initial]
) -> dict[str, torch.Tensor]:
    """Frozen parameters that are computed, not drawn: two builds agree on their values."""
    names = [
        name
        for name, one in model.named_parameters()
        if not one.requires_grad and found[name].family != "constant"
    ]
    if not names or sum(one.numel() for one in model.parameters()) > _MEASURABLE:
        return {}
    first, second = (_plainly(spec, source, each) for each in (seed, seed + 1))
    if first is second:  # a module that is there already says nothing of how it was built
        return {}
    mine, others = dict(first.named_parameters()), dict(second.named_parameters())
    return {
        name: mine[name]
        for name in names
        if name in mine and name in others and torch.equal(mine[name], others[name])
    }


def _values_missing(module: nn.Module) -> bool:
    """Whether a buffer or constant has no values because it was made from a parameter."""
    held = [*vars(module).values(), *module._buffers.values()]  # noqa: SLF001
    return any(
        isinstance(one, torch.Tensor) and one.is_meta and not isinstance(one, nn.Parameter)
        for one in held
    )


def _checked(spec: str, model: object) -> nn.Module:
    """``model``, if it is one that can be planned."""
    if not isinstance(model, nn.Module):
        raise ModelSourceError(f"{spec} returned a {type(model).__name__}, not a torch.nn.Module")
    if not any(True for _ in model.parameters()):
        raise ModelSourceError(f"{spec} has no parameters: there is nothing to plan")
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise ModelSourceError(
                f"{spec}: the shape of {name} is known only after a forward; give it a size"
            )
    for path, module in model.named_modules():
        hooks = [hook for hook in _HOOKS if getattr(module, hook, None)]
        if hooks:
            raise ModelSourceError(
                f"{spec}: module {path or type(module).__name__!r} has "
                f"{hooks[0].strip('_').replace('_', ' ')}, which no source shows; remove them, or "
                "move what they do into forward"
            )
    return model


def _offered(model: nn.Module, module: object) -> Example | None:
    """What ``example_inputs`` of the model, or of the module that defines it, holds or returns."""
    offered: Any = getattr(model, "example_inputs", None)
    if offered is None:
        offered = getattr(module, "example_inputs", None)
    if callable(offered):
        offered = offered()
    return None if offered is None else make_example(offered)


@contextmanager
def _undisturbed(seed: int) -> Iterator[None]:
    """Seed the random generators; afterwards put them and torch's defaults back."""
    dtype, gradients, python = torch.get_default_dtype(), torch.is_grad_enabled(), random.getstate()
    numpy: Any = sys.modules.get("numpy")
    numbers = None if numpy is None else numpy.random.get_state()
    initialised = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if initialised else []
    with torch.random.fork_rng(devices=devices):
        _seed(seed)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            torch.set_grad_enabled(gradients)
            random.setstate(python)
            if numpy is not None:
                numpy.random.set_state(numbers)


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed % (1 << 32))


@contextmanager
def _blaming(failure: str) -> Iterator[None]:
    """What a stranger's code raises, as one message that says what failed, why and where."""
    try:
        yield
    except PlannerError:
        raise
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        message = f"{failure}: {type(error).__name__}: {text}".rstrip(": ")
        place = _place(error)
        raise ModelSourceError(f"{message} ({place})" if place else message) from error


def _place(error: BaseException) -> str:
    """``file:line`` of the last line outside this package and torch; a syntax error's own."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}:{error.lineno}"
    own = (str(Path(__file__).parent), str(Path(torch.__file__).parent), "<frozen")
    lines = [
        f"{_short(frame.filename)}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(own) and "importlib" not in frame.filename
    ]
    return lines[-1] if lines else ""


def _short(path: str) -> str:
    """Relative to the current folder where it lies within."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd()))
    except ValueError:
        return path
