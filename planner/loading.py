"""Models from specifications: the only stage that runs what a user names."""

from __future__ import annotations

import json
import random
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from planner.errors import ModelSourceError, PlannerError
from planner.initializers import initials, recording, unknown
from planner.ir import Initial, TensorSpec
from planner.sources import Source, find_source, importable

# Up to this many parameters a model is built a second time, with values, to measure what no
# operation told; beyond it, memory matters more.
_MEASURABLE = 50_000_000

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

_DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A built model and what its initialiser does to each parameter, once per tensor.

    ``weights`` says whether the parameters hold values; else they are on the meta device.
    ``example_inputs`` are those that the specification offers, if any.
    """

    model: nn.Module
    initials: dict[str, Initial]
    spec: str
    weights: bool
    example_inputs: tuple[torch.Tensor, ...] | None = None


def load_model(
    spec: str, arguments: Mapping[str, object] | None = None, *, seed: int = 0
) -> LoadedModel:
    """Build the model that ``spec`` names, its parameters on the meta device where possible.

    ``spec`` is ``package.module:callable``, ``path/to/file.py:callable`` (a module class, a factory
    or a module; attribute paths work), ``torchvision:NAME``, ``timm:NAME`` or ``hf:CONFIG.json``;
    ``arguments`` are its keyword arguments. Random generators are seeded for the build and restored
    after it, as are the default dtype and the gradient mode.

    A model that reads its parameters' values while it is built is built plainly, with real ones.

    Raises:
        ModelSourceError: nothing there, or what is there builds no module that can be planned.
    """
    with _undisturbed(seed), _blaming(spec):
        source = find_source(spec, dict(arguments or {}))
        with importable(source.folder):
            model, found = _build(spec, source, seed)
            inputs = source.example or _offered(model, source.offers)
    weights = not any(parameter.is_meta for parameter in model.parameters())
    return LoadedModel(model, found, spec, weights, inputs)


def example_inputs(spec: str, model: nn.Module) -> tuple[torch.Tensor, ...] | None:
    """Inputs that a model offers: None where it says nothing.

    ``torchvision:`` models take a batch of two 224 × 224 images. Elsewhere ``example_inputs`` of
    the model, or of the Python module that defines its class, is used, or what it returns: a
    tensor, a :class:`~planner.ir.TensorSpec`, a text such as ``2x3x32x32``, or several of these.

    Raises:
        ModelSourceError: ``example_inputs`` is something else.
    """
    with _blaming(spec):
        if spec.startswith("torchvision:"):
            return find_source(spec, {}).example
        return _offered(model, sys.modules.get(type(model).__module__))


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


def parse_input(text: str) -> TensorSpec:
    """``"1x3x224x224"`` or ``"int64:2x128"`` (also ``"2x128:int64"``) as shape and dtype.

    Raises:
        PlannerError: not of this form, or an unknown dtype.
    """
    shape, dtype = text.strip(), "float32"
    if ":" in shape:
        left, _, right = shape.partition(":")
        shape, dtype = (left, right) if left[:1].isdigit() else (right, left)
    if not re.fullmatch(r"[0-9]{1,9}(x[0-9]{1,9})*", shape):
        raise PlannerError(f"{text!r} is not an input's shape: write 1x3x224x224 or int64:2x128")
    if dtype not in _DTYPES:
        raise PlannerError(f"{dtype!r} in {text!r} is not a dtype: write float32, int64 or bool")
    # An alias ("long") becomes the dtype's own name.
    name = str(_DTYPES[dtype]).removeprefix("torch.")
    return TensorSpec(tuple(int(size) for size in shape.split("x")), name)


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


def _offered(model: nn.Module, module: object) -> tuple[torch.Tensor, ...] | None:
    offered: Any = getattr(model, "example_inputs", None)
    if offered is None:
        offered = getattr(module, "example_inputs", None)
    if callable(offered):
        offered = offered()
    if offered is None:
        return None
    items = offered if isinstance(offered, (tuple, list)) else (offered,)
    return tuple(_tensor(item) for item in items)


def _tensor(item: object) -> torch.Tensor:
    if isinstance(item, torch.Tensor):
        return item
    if isinstance(item, str):
        item = parse_input(item)
    if not isinstance(item, TensorSpec):
        raise ModelSourceError(
            f"example_inputs holds a {type(item).__name__}: give tensors, or texts like 2x3x32x32"
        )
    return torch.zeros(item.shape, dtype=_DTYPES[item.dtype])


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
def _blaming(spec: str) -> Iterator[None]:
    """What a stranger's code raises, as one message that says where."""
    try:
        yield
    except ModelSourceError:
        raise
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        message = f"{spec} cannot be built: {type(error).__name__}: {text}".rstrip(": ")
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
