"""Budgets: from what a user writes to a number of parameters."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Literal

from planner.errors import BudgetError

_COUNTS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12}
_BYTES = {
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_FORM = re.compile(r"\+?(?P<number>[0-9_,]*\.?[0-9]+(?:E[+-]?[0-9]{1,3})?)\s*(?P<suffix>[A-Z%]*)")
_MOST = 10**15  # beyond any model, and as far as the solver's integers go
_ACCEPTED = (
    "a budget is a share of the dense count (10%, 0.1x), a number of parameters (2500000, 18M, "
    "also K, B, G, T) or a size in bytes (64MB, also KB, GB, TB, KiB, MiB, GiB)"
)


_SIZES = "a size is a number of bytes (64MB, also KB, GB, TB, KiB, MiB, GiB, TiB, or 64000000)"

Amount = str | int | float


@dataclass(frozen=True, slots=True)
class Limit:
    """A budget as it was asked for: in parameters, bytes stored or bytes of gradients a step."""

    kind: Literal["budget", "target bytes", "gradient bytes"]
    amount: Amount

    @property
    def text(self) -> str:
        """What a plan remembers of it."""
        written = str(self.amount).strip()
        return {
            "budget": written,
            "target bytes": f"{written} stored",
            "gradient bytes": f"{written} of gradients",
        }[self.kind]

    def parameters(self, dense: int, width: int, stored: int) -> int:
        """How many trainable parameters are allowed.

        Args:
            dense: trainable parameters of the original model.
            width: bytes of a trainable parameter, the widest if there are several.
            stored: bytes of what is stored but not trained: frozen parameters, buffers.

        Raises:
            BudgetError: the amount cannot be read, or leaves less than one parameter.
        """
        if self.kind == "budget":
            return parse_budget(self.amount, dense, width)
        rest = parse_bytes(self.amount)
        if self.kind == "target bytes":
            rest -= stored
        if rest < width:
            also = f", and {stored} are stored besides" if self.kind == "target bytes" else ""
            raise BudgetError(
                f"{self.text} are too few: a trainable parameter takes {width} bytes{also}"
            )
        return rest // width


def the_limit(
    budget: Amount | None, target_bytes: Amount | None, max_gradient_bytes: Amount | None
) -> Limit:
    """The one of the three that is given.

    Raises:
        BudgetError: none is, or more than one.
    """
    given = [
        limit
        for limit in (
            Limit("budget", budget) if budget is not None else None,
            Limit("target bytes", target_bytes) if target_bytes is not None else None,
            Limit("gradient bytes", max_gradient_bytes) if max_gradient_bytes is not None else None,
        )
        if limit is not None
    ]
    if len(given) != 1:
        said = " and ".join(f"{limit.kind} ({limit.amount})" for limit in given) or "none of them"
        raise BudgetError(
            "say the budget in one way, as budget, target bytes or maximal gradient bytes; "
            f"given: {said}"
        )
    return given[0]


def parse_bytes(text: Amount) -> int:
    """The number of bytes that ``text`` says, rounded down; a number without a unit is of bytes.

    Raises:
        BudgetError: ``text`` is no such size, or beyond 10^15 bytes.
    """
    number, suffix = _read(text, _SIZES)
    if suffix not in {"", "B", *_BYTES}:
        raise BudgetError(f"size {str(text).strip()!r} has the unknown unit {suffix!r}; {_SIZES}")
    size = int(number * _BYTES.get(suffix, 1))
    if size > _MOST:
        raise BudgetError(f"size {str(text).strip()!r} is more than 10^15 bytes; {_SIZES}")
    return size


def parse_budget(text: str | int | float, dense: int, bytes_per_parameter: int = 4) -> int:
    """The number of parameters that ``text`` allows, rounded down.

    Args:
        text: ``10%`` or ``0.1x`` of ``dense``; ``18M`` or ``2500000`` parameters; ``64MB`` of them.
            A number is a number of parameters.
        dense: trainable parameters of the original model.
        bytes_per_parameter: size of one parameter, for budgets in bytes.

    Raises:
        BudgetError: ``text`` is none of these forms, or allows less than one parameter or more
            than 10^15.

    The arithmetic is exact: 10% of 36479194 is 3647919.
    """
    number, suffix = _read(text, _ACCEPTED)
    written = str(text).strip()
    if suffix == "%":
        parameters = number * dense / 100
    elif suffix == "X":
        parameters = number * dense
    elif suffix in _COUNTS:
        parameters = number * _COUNTS[suffix]
    elif suffix in _BYTES:
        parameters = number * _BYTES[suffix] / bytes_per_parameter
    else:
        raise BudgetError(f"budget {written!r} has the unknown unit {suffix!r}; {_ACCEPTED}")
    if parameters < 1:
        raise BudgetError(f"budget {written!r} allows less than one parameter; {_ACCEPTED}")
    if parameters > _MOST:
        raise BudgetError(f"budget {written!r} allows more than 10^15 parameters; {_ACCEPTED}")
    return int(parameters)


def _read(text: Amount, accepted: str) -> tuple[Fraction, str]:
    """Number and unit."""
    written = str(text).strip()
    match = None if isinstance(text, bool) else _FORM.fullmatch(written.upper())
    try:
        if match is not None:
            digits = match["number"].replace(",", "").replace("_", "")
            return Fraction(Decimal(digits)), match["suffix"]
    except InvalidOperation:
        pass
    raise BudgetError(f"budget {written!r} cannot be read; {accepted}")
