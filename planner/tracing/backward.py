"""Functions with a backward of their own, as public functions that have the same gradients.

Such a function is run on random numbers first, to learn what its backward is:

- the derivative of its forward, computed in another way: then its forward is all there is;
- a factor for each element, as in straight-through estimators and where gradients are reversed:
  with the factor m, as backward gives it for ones, ``y + (x - x.detach()) * m`` is y wherever x is
  finite, and its gradient is m.

Any other backward is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import torch
from torch.autograd import Function
from torch.utils._python_dispatch import _disable_current_modes

from planner.tracing.faults import UnseenError
from planner.tracing.nested import tensors

Kind: TypeAlias = Literal["derivative", "factor"]

_TOLERANCE = 1e-4
_SCALES = (1.0, 100.0)  # of gradients: what clips them is not linear


class _Context:
    """What forward leaves for backward; other attributes are set as they come."""

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self.saved_tensors: tuple[Any, ...] = ()

    def save_for_backward(self, *given: Any) -> None:
        self.saved_tensors = given

    def mark_non_differentiable(self, *given: torch.Tensor) -> None:
        """Nothing to do: what is recorded has integers there."""

    def set_materialize_grads(self, value: bool) -> None:
        """Nothing to do: no gradient is left out."""

    def mark_dirty(self, *given: torch.Tensor) -> None:
        raise UnseenError("it changes its inputs in a function with a backward of its own")


def imitate(function: type[Function], args: tuple[Any, ...], kind: Kind) -> Any:
    """What ``function.apply(*args)`` gives, by calls that autograd can follow."""
    context = _Context(_needs(args))
    if kind == "derivative":
        return _forward(function, context, args)
    with torch.no_grad():
        output = _forward(function, context, args)
        ones = torch.ones_like(output)
        found: Any = function.backward(context, ones)
        factors = found if isinstance(found, tuple) else (found,)
    for given, factor, need in zip(args, factors, _needs(args), strict=False):
        if need and factor is not None:
            nothing = given - given.detach()
            output = output + (nothing if factor is ones else nothing * factor)
    return output


def _forward(function: type[Function], context: _Context, args: tuple[Any, ...]) -> Any:
    if function.setup_context is Function.setup_context:
        return function.forward(context, *args)
    output = function.forward(*args)
    function.setup_context(context, args, output)
    return output


def kind_of(function: type[Function], args: tuple[Any, ...], run: Callable[..., Any]) -> Kind:
    """What the backward of ``function`` is when it is applied to the likes of ``args``.

    Args:
        function: defines it.
        args: tensors without data and whatever else it takes.
        run: what ``function.apply`` does.

    Raises:
        UnseenError: it is neither, or does not run on random numbers.
    """
    needs = _needs(args)
    if not any(needs) or not torch.is_grad_enabled():
        return "derivative"  # that nobody asks for
    try:
        with _undisturbed():
            given = [_random(one) for one in args]
            leaves = [one for one, need in zip(given, needs, strict=True) if need]
            torch.manual_seed(0)
            outputs = [one for one in tensors(run(*given)) if one.requires_grad]
            own = [_gradients(outputs, leaves, scale) for scale in _SCALES]
            torch.manual_seed(0)
            plain = tensors(_forward(function, _Context(needs), tuple(given)))
            written = [one for one in plain if one.requires_grad]
            if len(written) == len(outputs):
                derived = [_gradients(written, leaves, scale) for scale in _SCALES]
                if all(map(_agree, own, derived)):
                    return "derivative"
            if len(outputs) == 1 == len(plain) and _multiplies(outputs[0], leaves, own):
                return "factor"
    except UnseenError:
        raise
    except Exception as error:  # whatever a user's function raises
        raise UnseenError(f"{function.__name__} does not run on random numbers: {error}") from error
    raise UnseenError(
        f"the backward of {function.__name__} is neither its forward's derivative nor a factor for "
        "each element"
    )


def _needs(args: tuple[Any, ...]) -> tuple[bool, ...]:
    return tuple(isinstance(one, torch.Tensor) and one.requires_grad for one in args)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Inside, tensors have values, and neither a mode nor the random generator takes note."""
    with (
        torch.random.fork_rng(devices=[]),
        torch._C.DisableTorchFunction(),
        _disable_current_modes(),
        torch.enable_grad(),
    ):
        yield


def _random(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    if value.is_floating_point() or value.is_complex():
        made = torch.randn(value.shape, dtype=value.dtype, device="cpu") * 1.5
        return made.requires_grad_(value.requires_grad)
    return torch.randint(0, 2, value.shape, device="cpu").to(value.dtype)


_Gradients: TypeAlias = list[torch.Tensor | None]


def _gradients(outputs: list[Any], leaves: list[Any], scale: float) -> _Gradients:
    """Of a random gradient at ``outputs``, the same for each call with ``scale``."""
    generator = torch.Generator().manual_seed(int(scale))
    random = [
        torch.randn(one.shape, generator=generator, dtype=one.dtype) * scale for one in outputs
    ]
    found = torch.autograd.grad(outputs, leaves, random, retain_graph=True, allow_unused=True)
    return list(found)


def _multiplies(output: torch.Tensor, leaves: list[Any], own: list[_Gradients]) -> bool:
    """Whether gradients are those at ``output`` times what they are for ones."""
    if any(one.shape != output.shape for one in leaves):
        return False
    ones = torch.ones_like(output)
    factors: list[Any] = list(
        torch.autograd.grad(output, leaves, ones, retain_graph=True, allow_unused=True)
    )
    for scale, found in zip(_SCALES, own, strict=True):
        generator = torch.Generator().manual_seed(int(scale))
        at_output = torch.randn(output.shape, generator=generator, dtype=output.dtype) * scale
        expected: _Gradients = [None if one is None else one * at_output for one in factors]
        if not _agree(found, expected):
            return False
    return True


def _agree(one: _Gradients, other: _Gradients) -> bool:
    for mine, theirs in zip(one, other, strict=True):
        if mine is None or theirs is None:
            if mine is not None or theirs is not None:
                return False
        elif float((mine - theirs).abs().max()) > _TOLERANCE * float(mine.abs().max()):
            return False
    return True
