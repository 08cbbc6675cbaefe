"""Sizes as a forward would compute them: symbolic integers as operations on tensors' shapes.

In a recorded run the sizes of the example inputs are symbols. Where a forward uses a size, the
recorded value is an expression in these symbols, such as ``s0*s1//4``. It is written as the shape
of a tensor at hand where one has just that size, else as arithmetic on such shapes.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import sympy
import torch
import torch.fx

_Value = Any  # an fx node or a plain number


class Extents:
    """Sizes known in one forward: of its inputs, and of the tensors computed so far."""

    def __init__(self, graph: torch.fx.Graph) -> None:
        self._graph = graph
        self._known: dict[sympy.Expr, Callable[[], torch.fx.Node]] = {}
        self._made: dict[tuple[torch.fx.Node, int], torch.fx.Node] = {}
        self._symbols: list[tuple[torch.SymInt, Callable[[], torch.fx.Node]]] = []
        self._version = -1

    def learn(self, tensor: torch.Tensor, node: torch.fx.Node) -> None:
        """``node`` stands for ``tensor``: its sizes can be read off it."""
        sizes: list[Any] = list(tensor.shape)
        for dim, size in enumerate(sizes):
            if isinstance(size, torch.SymInt):
                self.define(size, functools.partial(self._size, node, dim))

    def define(self, size: Any, read: Callable[[], torch.fx.Node]) -> None:
        """``read`` gives the node of ``size``."""
        self._symbols.append((size, read))
        self._known.setdefault(size.node.expr, read)

    def value(self, size: Any) -> _Value:
        """The node or number that ``size`` is.

        Raises:
            TypeError: it is not computed from sizes that are known here.
        """
        environment = size.node.shape_env
        if environment is not None and environment._version_counter != self._version:
            # Guards may have made symbols equal since.
            self._version = environment._version_counter
            self._known = {}
            for known, read in self._symbols:
                self._known.setdefault(known.node.expr, read)
        return self._expression(size.node.expr)

    def _size(self, node: torch.fx.Node, dim: int) -> torch.fx.Node:
        if (node, dim) not in self._made:
            shape = self._graph.call_function(getattr, (node, "shape"))
            self._made[node, dim] = self._graph.call_function(operator.getitem, (shape, dim))
        return self._made[node, dim]

    def _call(self, function: Callable[..., Any], *args: _Value) -> _Value:
        if all(isinstance(item, (int, float)) for item in args):
            return function(*args)
        return self._graph.call_function(function, args)

    def _expression(self, expr: sympy.Basic) -> _Value:
        if isinstance(expr, sympy.Integer):
            return int(expr)
        if isinstance(expr, (sympy.Float, sympy.Rational)):
            return float(expr)
        read = self._known.get(expr)
        if read is not None:
            return read()
        if isinstance(expr, sympy.Add):
            return self._sum(expr)
        if isinstance(expr, sympy.Mul):
            return self._product(expr)
        if isinstance(expr, sympy.Pow):
            base, exponent = expr.args
            if exponent == -1:
                return self._call(operator.truediv, 1, self._expression(base))
            return self._call(operator.pow, self._expression(base), self._expression(exponent))
        function = _FUNCTIONS.get(type(expr).__name__)
        if function is not None:
            return self._fold(function, [self._expression(item) for item in expr.args])
        raise TypeError(f"the size {expr} cannot be computed from the shapes at hand")

    def _sum(self, expr: sympy.Add) -> _Value:
        terms = sorted(expr.args, key=lambda term: (term.could_extract_minus_sign(), str(term)))
        # Constants last: x.shape[1] + 1.
        terms.sort(key=lambda term: (term.could_extract_minus_sign(), term.is_number))
        total = self._expression(terms[0])
        for term in terms[1:]:
            if term.could_extract_minus_sign():
                total = self._call(operator.sub, total, self._expression(-term))
            else:
                total = self._call(operator.add, total, self._expression(term))
        return total

    def _product(self, expr: sympy.Mul) -> _Value:
        coefficient, rest = expr.as_coeff_Mul()
        if isinstance(coefficient, sympy.Rational) and coefficient.q != 1:
            # An exact quotient of integers, such as 3*s0/2.
            upper = self._expression(coefficient.p * rest)
            return self._call(operator.floordiv, upper, int(coefficient.q))
        factors = sorted(expr.args, key=lambda factor: (factor.is_number, str(factor)))
        return self._fold(operator.mul, [self._expression(factor) for factor in factors])

    def _fold(self, function: Callable[..., Any], values: list[_Value]) -> _Value:
        if len(values) == 1:
            return self._call(function, values[0])
        total = values[0]
        for value in values[1:]:
            total = self._call(function, total, value)
        return total


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "FloorDiv": operator.floordiv,
    "CleanDiv": operator.floordiv,
    "Mod": operator.mod,
    "PythonMod": operator.mod,
    "IntTrueDiv": operator.truediv,
    "FloatTrueDiv": operator.truediv,
    "Max": max,
    "Min": min,
    "ToFloat": float,
    "TruncToInt": int,
    "PowByNatural": operator.pow,
    "OpaqueUnaryFn_sqrt": math.sqrt,
}
