"""Values of a program as source. Every string goes through ``repr`` or an identifier check."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from planner import operations
from planner.errors import PlanFormatError
from planner.ir import (
    Container,
    Definition,
    Items,
    Leaf,
    Mapping,
    Node,
    Operation,
    Ref,
    Slice,
    Slot,
    Special,
    Switch,
    Training,
    Value,
    is_attribute,
)

# Binding strength of operators: an operand binds tighter than its operator, or gets brackets.
ATOM, NUMBER, POWER, UNARY, TERM, SUM, SHIFT, BITAND, BITXOR, BITOR, COMPARISON, NOT, CHOICE = (
    range(12, -1, -1)
)

_INFIX = {
    "pow": ("**", POWER),
    "mul": ("*", TERM),
    "truediv": ("/", TERM),
    "floordiv": ("//", TERM),
    "mod": ("%", TERM),
    "matmul": ("@", TERM),
    "add": ("+", SUM),
    "sub": ("-", SUM),
    "lshift": ("<<", SHIFT),
    "rshift": (">>", SHIFT),
    "and_": ("&", BITAND),
    "xor": ("^", BITXOR),
    "or_": ("|", BITOR),
    "lt": ("<", COMPARISON),
    "le": ("<=", COMPARISON),
    "gt": (">", COMPARISON),
    "ge": (">=", COMPARISON),
    "eq": ("==", COMPARISON),
    "ne": ("!=", COMPARISON),
    "is_": ("is", COMPARISON),
    "is_not": ("is not", COMPARISON),
}
AUGMENTED = {
    "iadd": "+=",
    "isub": "-=",
    "imul": "*=",
    "itruediv": "/=",
    "ifloordiv": "//=",
    "iand": "&=",
    "ior": "|=",
    "ixor": "^=",
    "ipow": "**=",
    "imod": "%=",
    "imatmul": "@=",
    "ilshift": "<<=",
    "irshift": ">>=",
}
_PREFIX = {"neg": "-", "pos": "+", "invert": "~"}


@dataclass(frozen=True, slots=True)
class Expression:
    """Source text and how tightly it binds."""

    text: str
    strength: int = ATOM

    def within(self, strength: int) -> str:
        """The text as an operand of an operator of ``strength``."""
        return self.text if self.strength > strength else f"({self.text})"


@dataclass(frozen=True, slots=True)
class Scope:
    """How names read at some place of the file: values of a forward, constructor arguments."""

    value: Callable[[str], Expression]
    argument: Callable[[str], str]


def is_name(name: str) -> bool:
    """Whether Python can write ``name`` as an attribute."""
    return name.isidentifier() and not keyword.iskeyword(name)


def identifier(name: str) -> str:
    """``name`` if it is an identifier and no keyword.

    Raises:
        PlanFormatError: it is not.
    """
    if not is_name(name):
        raise PlanFormatError(f"{name!r} cannot be a name in the emitted file")
    return name


def attribute(name: str) -> str:
    """``name`` if a module or tensor may be called so.

    Raises:
        PlanFormatError: it may not.
    """
    if not is_attribute(name):
        raise PlanFormatError(f"{name!r} cannot be an attribute in the emitted file")
    return name


def access(base: str, path: str, owner: Definition | Node | None = None) -> str:
    """The module or tensor at the dotted ``path`` below ``base``: ``self.layer[0].weight``.

    ``owner`` is what stands at ``base``: it tells whether a number counts items or is a name.
    """
    text = base
    for part in path.split("."):
        if is_name(part):
            text += f".{part}"
        elif is_numbered(owner) or (isinstance(owner, Leaf) and part.isdecimal()):
            text += f"[{int(part)}]"
        else:
            text = f"getattr({text}, {attribute(part)!r})"
        owner = child(owner, part)
    return text


def child(owner: Definition | Node | None, name: str) -> Node | None:
    """What stands at ``name`` in ``owner``; None where only another definition tells.

    All below a layer of torch counts as that layer.
    """
    if isinstance(owner, (Definition, Container)):
        return dict(owner.children).get(name)
    return owner if isinstance(owner, Leaf) else None


def is_numbered(owner: Definition | Node | None) -> bool:
    """Whether the children of ``owner`` are items of a list, in order."""
    if isinstance(owner, Definition):
        kind: str = owner.base
    elif isinstance(owner, Container):
        kind = owner.container
    else:
        return False
    names = [name for name, _ in owner.children]
    return kind in ("ModuleList", "Sequential") and names == [str(i) for i in range(len(names))]


def literal(value: Value) -> str:
    """``value`` without references, as source: constructor arguments by their names."""

    def refuse(name: str) -> Expression:
        raise PlanFormatError(f"{name!r} is not defined here")

    return expression(value, Scope(refuse, str)).text


def expression(value: Value, scope: Scope) -> Expression:
    """``value`` as source."""
    if isinstance(value, Ref):
        return scope.value(value.ref)
    if isinstance(value, Slot):
        return Expression(scope.argument(identifier(value.slot)))
    if isinstance(value, Training):
        return (
            Expression("self.training") if value.training else Expression("not self.training", NOT)
        )
    if isinstance(value, Switch):
        ours, theirs = (expression(item, scope) for item in (value.train, value.eval))
        return Expression(
            f"{ours.within(CHOICE)} if self.training else {theirs.within(CHOICE)}", CHOICE
        )
    if value is None or isinstance(value, (bool, str)):
        return Expression(repr(value))
    if isinstance(value, (int, float)):
        text = repr(value)
        return Expression(text, UNARY if text.startswith("-") else NUMBER)
    if isinstance(value, tuple):
        items = [expression(item, scope).text for item in value]
        return Expression(f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})")
    if isinstance(value, Items):
        return Expression(f"[{', '.join(expression(item, scope).text for item in value.list)}]")
    if isinstance(value, Mapping):
        pairs = (f"{key!r}: {expression(item, scope).text}" for key, item in value.dict)
        return Expression("{" + ", ".join(pairs) + "}")
    if isinstance(value, Slice):
        parts = ["None" if p is None else expression(p, scope).text for p in value.slice]
        return Expression(f"slice({', '.join(parts)})")
    if isinstance(value, Leaf):
        return Expression(layer(value))
    return Expression(_special(value))


def layer(leaf: Leaf) -> str:
    """The constructor call that ``leaf`` is.

    Raises:
        PlanFormatError: it is no layer of torch.
    """
    if not operations.is_layer(leaf.type):
        raise PlanFormatError(f"{leaf.type!r} is not a layer of torch.nn")
    parts = [literal(value) for value in leaf.args]
    parts += [f"{identifier(key)}={literal(value)}" for key, value in leaf.kwargs]
    return f"nn.{leaf.type}({', '.join(parts)})"


def _special(value: Special) -> str:
    if value.special == "ellipsis":
        return "..."
    if value.special == "float":
        return f'float("{float(value.text)}")'
    if value.special == "complex":
        return repr(complex(value.text))
    if value.special == "device":
        return f"torch.device({value.text!r})"
    if value.special == "function":
        if not operations.is_function(value.text):
            raise PlanFormatError(f"{value.text!r} is not an operation that a plan may use")
        return function_name(value.text)
    return f"torch.{identifier(value.text)}"


def function_name(target: str) -> str:
    """A public function as the emitted file writes it."""
    if target.startswith("torch.nn.functional."):
        return f"F.{target.rpartition('.')[2]}"
    return target.removeprefix("builtins.").replace("torch.nn.", "nn.", 1)


def call(operation: Operation, scope: Scope, module: Callable[[str], str]) -> Expression:
    """The right-hand side of an operation; ``module`` gives the text of a module or tensor by path.

    Raises:
        PlanFormatError: the operation is not on the allow-list.
    """
    target = operation.target
    if operation.op == "attribute":
        return Expression(module(target))
    if operation.op == "module":
        return Expression(
            f"{module(target)}({_arguments(operation.args, operation.kwargs, scope)})"
        )
    if operation.op == "method":
        if not operations.is_method(target) or not operation.args:
            raise PlanFormatError(f"{target!r} is not a method that a plan may use")
        owner = expression(operation.args[0], scope).within(NUMBER)
        if target == "__getitem__" and len(operation.args) == 2:
            return Expression(f"{owner}[{_index(operation.args[1], scope)}]")
        return Expression(
            f"{owner}.{target}({_arguments(operation.args[1:], operation.kwargs, scope)})"
        )
    if not operations.is_function(target):
        raise PlanFormatError(f"{target!r} is not an operation that a plan may use")
    return _function(operation, scope)


def change(operation: Operation, name: str | None, scope: Scope) -> str | None:
    """A change in place as a statement, where Python has one: ``x += y``, ``x[i] = y``.

    ``name`` is the variable that holds what changes and is to hold the result, if it is the same.
    """
    function, args = operation.target, operation.args
    if operation.op != "function" or operation.kwargs:
        return None
    if function == "operator.setitem" and len(args) == 3:
        owner = expression(args[0], scope).within(NUMBER)
        return f"{owner}[{_index(args[1], scope)}] = {expression(args[2], scope).text}"
    sign = AUGMENTED.get(function.removeprefix("operator."))
    if sign is None or name is None or len(args) != 2:
        return None
    return f"{name} {sign} {expression(args[1], scope).text}"


def refusal(condition: Expression, opposite: Expression) -> list[str]:
    """The statement that stops a forward where ``condition`` does not hold."""
    text = f"captured at {condition.text} alone: plan the model at other sizes for others"
    return [f"if {opposite.text}:", f"    raise ValueError({text!r})"]


OPPOSITES = {
    "operator.lt": "operator.ge",
    "operator.ge": "operator.lt",
    "operator.gt": "operator.le",
    "operator.le": "operator.gt",
    "operator.eq": "operator.ne",
    "operator.ne": "operator.eq",
}


def _function(operation: Operation, scope: Scope) -> Expression:
    target, args = operation.target, operation.args
    name = target.rpartition(".")[2]
    if target == "builtins.getattr":
        attribute = args[1] if len(args) == 2 and not operation.kwargs else None
        if not isinstance(attribute, str) or attribute not in operations.ATTRIBUTES:
            raise PlanFormatError(f"{attribute!r} is not an attribute that a plan may read")
        return Expression(f"{expression(args[0], scope).within(NUMBER)}.{attribute}")
    if target.startswith("operator.") and not operation.kwargs:
        if name in _INFIX and len(args) == 2:
            sign, strength = _INFIX[name]
            left, right = expression(args[0], scope), expression(args[1], scope)
            # Left-associative: an equal operator may stand on the left without brackets.
            tie = strength if strength in (POWER, COMPARISON) else strength - 1
            return Expression(f"{left.within(tie)} {sign} {right.within(strength)}", strength)
        if name in _PREFIX and len(args) == 1:
            return Expression(f"{_PREFIX[name]}{expression(args[0], scope).within(TERM)}", UNARY)
        if name == "not_" and len(args) == 1:
            return Expression(f"not {expression(args[0], scope).within(NOT)}", NOT)
        if name == "getitem" and len(args) == 2:
            owner = expression(args[0], scope).within(NUMBER)
            return Expression(f"{owner}[{_index(args[1], scope)}]")
        if name == "contains" and len(args) == 2:
            left, right = expression(args[1], scope), expression(args[0], scope)
            return Expression(
                f"{left.within(COMPARISON)} in {right.within(COMPARISON)}", COMPARISON
            )
    return Expression(f"{function_name(target)}({_arguments(args, operation.kwargs, scope)})")


def _arguments(args: Sequence[Value], kwargs: Sequence[tuple[str, Value]], scope: Scope) -> str:
    texts = [expression(value, scope).text for value in args]
    texts += [f"{identifier(key)}={expression(value, scope).text}" for key, value in kwargs]
    return ", ".join(texts)


def _index(value: Value, scope: Scope) -> str:
    """What stands between the brackets of a subscript."""
    if isinstance(value, tuple) and value:
        inner = ", ".join(_index(item, scope) for item in value)
        return inner + "," if len(value) == 1 else inner
    if isinstance(value, Slice):
        start, stop, step = (
            "" if part is None else expression(part, scope).text for part in value.slice
        )
        start = "" if start == "0" and not step else start
        return f"{start}:{stop}" + (f":{step}" if step else "")
    return expression(value, scope).text
