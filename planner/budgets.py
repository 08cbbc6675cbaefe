"""Budgets: from what a user writes to a number of parameters."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from fractions import Fraction

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
    if isinstance(text, bool):
        raise BudgetError(f"budget {text!r} cannot be read; {_ACCEPTED}")
    written = str(text).strip()
    match = _FORM.fullmatch(written.upper())
    if match is None:
        raise BudgetError(f"budget {written!r} cannot be read; {_ACCEPTED}")
    suffix = match["suffix"]
    try:
        number = Fraction(Decimal(match["number"].replace(",", "").replace("_", "")))
    except InvalidOperation:
        raise BudgetError(f"budget {written!r} cannot be read; {_ACCEPTED}") from None
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
