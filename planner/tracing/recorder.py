"""Capture by a recorded run: what a model does with tensors that have shapes but no data.

The model runs once in each mode, as ``torch.export`` runs it when it is not strict: Python executes
as it is, so any control flow that does not depend on tensors' values works.
Each module with a forward of its own gets a graph of the public functions it called, its children
as leaves. Recording functions (``F.conv2d``) rather than dispatched operations
(``aten.convolution``) keeps what the model's author wrote.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
import torch.fx
from torch import nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd import Function
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointFunction

from planner.tracing.arithmetic import remembering
from planner.tracing.backward import imitate, kind_of
from planner.tracing.calls import (
    Call,
    Context,
    arguments_of,
    bind,
    input_name,
    is_computed,
    items_of,
)
from planner.tracing.checks import DECISION
from planner.tracing.decisions import decided
from planner.tracing.extents import (
    Decision,
    Extent,
    Extents,
    Place,
    Ratio,
    plain,
    shape_of,
    traced,
    watching,
)
from planner.tracing.faults import UnseenError
from planner.tracing.functions import (
    function_of,
    is_in_place,
    map_tensors,
    run_leaf,
    shaped,
    tensors_in,
    typed,
)
from planner.tracing.interception import (
    applications,
    calls,
    lengths,
    quiet,
    unchecked,
    variables,
    wholes,
)
from planner.tracing.keys import attributes, is_made_of_tensors, likeness
from planner.tracing.known import READS, known_value
from planner.tracing.likeness import text_of
from planner.tracing.naming import NAME, local_variables
from planner.tracing.nesting import refuse_nesting
from planner.tracing.norms import DECOMPOSED
from planner.tracing.packing import SHAPES
from planner.tracing.repeats import Repeats
from planner.tracing.values import is_literal


class InlineError(Exception):
    """The module named by ``path`` cannot have a forward of its own: it belongs to its caller's."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(reason)
        self.path = path


@dataclass(slots=True)
class Recorded:
    """One call of a module: its graph and the tensors that no module owns.

    ``text`` says what the graph does, apart from what it checks.
    """

    call: Call
    graph: torch.fx.Graph
    constants: dict[str, torch.Tensor]
    text: str


class RecordingError(Exception):
    """``cause`` was raised while the forward of the module at ``path`` ran."""

    def __init__(self, path: str, cause: Exception) -> None:
        super().__init__(str(cause))
        self.path = path
        self.cause = cause


def record(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    mode: AbstractContextManager[Any],
    leaves: frozenset[str],
    inlined: frozenset[str],
    turned: Place | None = None,
) -> dict[str, list[Recorded]]:
    """Run ``model`` once; every call of every module that has a forward of its own, by path.

    Args:
        model: its tensors have no data; it runs in the mode that its flag says.
        args: tensors without data and literals.
        kwargs: likewise.
        mode: in which tensors are made without data.
        leaves: paths of modules that are called, not entered.
        inlined: paths of modules whose forward is recorded as part of their caller's.
        turned: where comparisons of sizes have the other outcome.

    Raises:
        RecordingError: a forward raised; names the module.
        InlineError: a module has to be inlined; names it.
    """
    return _Recorder(model, mode, leaves, inlined, turned).run(args, kwargs)


@dataclass(slots=True)
class _Frame:
    """A forward that is being recorded. ``kept`` keeps ids from being used again."""

    module: nn.Module
    path: str
    call: Call
    graph: torch.fx.Graph
    extents: Extents
    nodes: dict[int, torch.fx.Node]
    context: Context
    device: torch.fx.Node | None = None
    parts: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    kept: list[Any] = field(default_factory=list)
    constants: dict[str, torch.Tensor] = field(default_factory=dict)
    sizes: dict[int, str] = field(default_factory=dict)

    def note_names(self) -> None:
        """Call values what the forward calls them at this moment."""
        forward = getattr(self.module.forward, "__code__", None)
        for name, value in local_variables(forward):
            if id(value) in self.nodes:
                self.nodes[id(value)].meta.setdefault(NAME, name)
            elif isinstance(value, (Extent, Ratio)) and id(value) not in self.sizes:
                self.sizes[id(value)] = name
                self.kept.append(value)

    def size(self, value: Extent | Ratio) -> Any:
        """The node that computes a size, or its number."""
        node = self.extents.value(value)
        if isinstance(node, torch.fx.Node) and id(value) in self.sizes:
            node.meta.setdefault(NAME, self.sizes[id(value)])
        return node

    def refuse_autocast(self) -> None:
        """Stop where autocast is not what it was when the forward was called."""
        if self.context.autocast != Context.now().autocast:
            raise UnseenError("it switches autocast within its forward, which no graph shows")

    def node_of(self, value: Any) -> torch.fx.Node | None:
        """The node that stands for ``value``, unless it is a container that was changed since."""
        node = self.nodes.get(id(value))
        if node is not None and self.parts.get(id(value), ()) != _parts(value):
            return None
        return node

    def learn(self, value: Any, node: torch.fx.Node, *, detached: bool = False) -> None:
        """``node`` stands for ``value``, and its items for what ``value`` holds.

        ``detached`` says that no gradients go back through it.
        """
        if isinstance(value, torch.Tensor):
            if detached and value.is_floating_point():
                node = self.graph.call_method("detach", (node,))
            node.meta["dtype"] = value.dtype
            node.meta["shape"] = tuple(map(plain, value.shape))
        if isinstance(value, (torch.Tensor, Extent, Ratio)):
            self.nodes[id(value)] = node
            self.kept.append(value)
        elif is_computed(value):
            if type(value) in (tuple, list):
                node.meta["parts"] = type(value), len(value)
            self.nodes[id(value)] = node
            self.kept.append(value)
            self.parts[id(value)] = _parts(value)
            for key, item in items_of(value).items():
                if is_computed(item):
                    made = self.graph.call_function(operator.getitem, (node, key))
                    self.learn(item, made, detached=detached)


def _parts(value: Any) -> tuple[Any, ...]:
    """What a container holds, by identity; nothing for anything else."""
    if not isinstance(value, (list, dict)):
        return ()
    return tuple((key, id(item)) for key, item in items_of(value).items())


@dataclass(frozen=True, slots=True)
class _Run:
    """What came of one call of the module at ``path``, with all calls below it."""

    path: str
    made: tuple[tuple[str, Recorded], ...]
    inlined: frozenset[str]
    result: Any

    def serves(self, path: str, inlined: frozenset[str]) -> bool:
        """Whether what is to be inlined below ``path`` is so here."""
        below = (part for part in inlined if part.startswith(f"{path}."))
        return all(self.path + part.removeprefix(path) in self.inlined for part in below)


class _Recorder(TorchFunctionMode):
    def __init__(
        self,
        model: nn.Module,
        mode: AbstractContextManager[Any],
        leaves: frozenset[str],
        inlined: frozenset[str],
        turned: Place | None,
    ) -> None:
        super().__init__()
        self.turned = turned
        self.model = model
        self.mode = mode
        self.leaves = leaves
        self.inlined = inlined
        self.paths: dict[int, str] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            self.paths.setdefault(id(module), path)
        self.weights = frozenset(map(id, model.parameters()))
        self.memory = frozenset(map(_memory, model.parameters()))
        self.frames: list[_Frame] = []
        self.finished: list[_Frame] = []
        self.paused = False
        self.found: dict[str, list[Recorded]] = {}
        self.made: list[tuple[str, Recorded]] = []
        self.repeats: Repeats[_Run] = Repeats(model)
        self.owned: dict[int, tuple[dict[int, str], dict[int, str]]] = {}

    def run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, list[Recorded]]:
        watched = (
            variables(),
            calls(self.called),
            applications(self.applied),
            wholes(SHAPES, self.whole),
            lengths(),
            quiet(),
            unchecked(),
            watching(self.decided),
            remembering(self.model),
            self.repeats.watching(),
        )
        with ExitStack() as stack:
            for context in (self.mode, self, *watched):
                stack.enter_context(context)
            self.enter(self.model, args, dict(kwargs))
        return self.found

    # ------------------------------------------------------------------ calls of modules

    def called(self, module: nn.Module, args: Any, kwargs: Any, run: Callable[..., Any]) -> Any:
        """What ``module(*args, **kwargs)`` does; ``run`` is what it would do unrecorded."""
        path = self.paths.get(id(module))
        if self.paused or path is None or path in self.inlined or self.reweighted(module):
            # Made on the fly, or a part of the forward that calls it.
            return run(module, *args, **kwargs)
        frame = self.frames[-1]
        local = self.names(frame.module)[0].get(id(module))
        if local is None:
            raise InlineError(frame.path, f"it calls {path!r}, which is not below it")
        frame.refuse_autocast()
        frame.note_names()
        node = frame.graph.call_module(local, *self.to_arguments(args, kwargs))
        try:
            if path in self.leaves:
                with self.pause():
                    result = run_leaf(module, plain(args), plain(kwargs))
            else:
                result = self.repeated(module, args, kwargs)
        except Exception:  # the caller may expect it, and go another way
            frame.graph.erase_node(node)
            raise
        result = self.fresh(result, (args, kwargs))
        frame.learn(result, node, detached=frame.context.gradients and not torch.is_grad_enabled())
        return result if path in self.leaves else _hooked(module, args, kwargs, result)

    def reweighted(self, module: nn.Module) -> bool:
        """Whether the caller has given ``module`` other weights, as functional calls do."""
        return not self.weights.issuperset(map(id, module.parameters()))

    def repeated(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Enter ``module``, or do again what came of a module that is like it."""
        path = self.paths[id(module)]
        given = args, kwargs
        alike = likeness(given)
        call = None if alike is None else (alike, Context.now())
        found = self.repeats.find(module, call, lambda run: run.serves(path, self.inlined))
        if found is not None:
            for part, recorded in found.made:
                self.keep(path + part.removeprefix(found.path), recorded)
            with self.pause():
                return map_tensors(found.result, torch.clone)
        before, versions = len(self.made), [one._version for one in tensors_in(given)]
        with self.repeats.running(module, call) as keep:
            result = self.enter(module, args, kwargs)
            made = tuple(self.made[before:])
            alone = all(f"{part}.".startswith(f"{path}.") for part, _ in made)
            alone &= not any(recorded.constants for _, recorded in made)
            alone &= versions == [one._version for one in tensors_in(given)]
            alone &= likeness(given) == alike
            own = {
                id(one) for one in tensors_in((given, [*module.parameters(), *module.buffers()]))
            }
            alone &= not any(id(one) in own for one in tensors_in(result))
            if alone and is_made_of_tensors(result):
                keep(_Run(path, made, self.inlined, result))
        return result

    def keep(self, path: str, recorded: Recorded) -> None:
        """Note one call of the module at ``path``."""
        self.found.setdefault(path, []).append(recorded)
        self.made.append((path, recorded))

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run ``module``'s forward in a frame of its own."""
        path = self.paths[id(module)]
        graph = torch.fx.Graph()
        call = bind(module, args, kwargs)
        nodes: dict[int, torch.fx.Node] = {}
        extents = Extents(graph, lambda value: nodes.get(id(value)))
        frame = _Frame(module, path, call, graph, extents, nodes, Context.now())
        given = arguments_of(module, args, kwargs)
        # All placeholders first, then what is read off them.
        placeholders = [graph.placeholder(input_name(name)) for name in call.inputs]
        for name, node in zip(call.inputs, placeholders, strict=True):
            frame.learn(given[name], node)
        self.frames.append(frame)
        try:
            refuse_nesting(module, given)
            buffers = dict(module._buffers)
            result = module.forward(*args, **kwargs)
            self.write_back(module, buffers)
            graph.output(self.to_output(result))
        except (InlineError, RecordingError):
            raise
        except Exception as error:  # whatever a user's forward raises
            raise RecordingError(path, error) from error
        finally:
            self.finished.append(self.frames.pop())
        self.keep(path, Recorded(call, graph, frame.constants, text_of(graph)))
        return result

    def write_back(self, module: nn.Module, buffers: Mapping[str, torch.Tensor | None]) -> None:
        """Write what a forward assigned to its ``buffers`` into them.

        What has another shape cannot be: such a buffer remembers what it was last computed for, and
        where the recorded run computes it, so does the emitted forward, each time.

        Raises:
            UnseenError: it is kept in the state as well.
        """
        for name, value in module._buffers.items():
            before = buffers.get(name)
            if name in module._non_persistent_buffers_set and before is None:
                continue  # a cache that starts empty
            if value is not None and name in buffers and value is not before:
                if before is not None and plain(value.shape) != plain(before.shape):
                    if name not in module._non_persistent_buffers_set:
                        raise UnseenError(f"its buffer {name!r} gets another shape")
                    continue
                graph = self.frames[-1].graph
                graph.call_method("copy_", (graph.get_attr(name), self.to_argument(value)))
        module._buffers.update(buffers)

    def fresh(self, result: Any, given: Any) -> Any:
        """``result`` with tensors of its own where it hands back what it was given."""
        if isinstance(result, torch.Tensor):
            if any(result is one for one in tensors_in(given)):
                with self.pause():
                    return result.view_as(result)
            return result
        if type(result) in (tuple, list):
            return type(result)(self.fresh(item, given) for item in result)
        return result

    # ------------------------------------------------------------------ calls of functions

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self.paused or not self.frames:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        answer = decided(name, args)
        if answer is not None:
            return answer
        if name in _UNFOLDED:
            with self:
                return _UNFOLDED[name](*args, **kwargs)
        known = known_value(self.frames[-1].nodes.get(id(args[0]))) if name in READS else None
        if known is not None:
            return getattr(known, name)()
        changes = is_in_place(func)
        if changes and args and self.is_weight(args[0]):
            raise UnseenError("it changes a parameter in place, which may be a generated one")
        result = shaped(func, plain(args), plain(kwargs))
        if isinstance(result, (torch.Size, int)):
            return _sizes(name, result, args)
        if not changes:
            if not tensors_in(result):
                return result
            result = self.fresh(result, (args, kwargs))
        frame = self.frames[-1]
        frame.note_names()
        kind, target, args, kwargs = function_of(func, args, kwargs)
        given, named = self.to_arguments(args, kwargs)
        node = frame.graph.create_node(kind, target, given, named)
        frame.refuse_autocast()
        detached = frame.context.gradients and not torch.is_grad_enabled()
        detached &= any(one.requires_grad for one in tensors_in((args, kwargs)))
        if changes and args and isinstance(args[0], torch.Tensor):
            if target is not operator.setitem:
                frame.learn(args[0], node)
        frame.learn(result, node, detached=detached)
        return result

    def is_weight(self, value: Any) -> bool:
        """Whether ``value`` is a parameter, a part of one, or its data."""
        return isinstance(value, torch.Tensor) and _memory(value) in self.memory

    def applied(self, function: type[Function], args: Any, run: Callable[..., Any]) -> Any:
        """What ``function.apply(*args)`` does; ``run`` is what it would do unrecorded."""
        if self.paused:
            return run(*args)
        if function is CheckpointFunction:
            # Gradients are those of the part that it computes again.
            part, _, *given = args
            return part(*given)
        with self.pause():
            kind = kind_of(function, args, run)
        return imitate(function, args, kind)

    def whole(
        self, function: Callable[..., Any], run: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        """What ``function(*args, **kwargs)`` gives, as one node; ``run`` does it unrecorded."""
        if self.paused or not self.frames:
            return run(*args, **kwargs)
        with self.pause():
            result = SHAPES[function](*plain(args), **plain(kwargs))
        frame = self.frames[-1]
        given, named = self.to_arguments(args, kwargs)
        frame.learn(result, frame.graph.call_function(function, given, named))
        return result

    def decided(self, decision: Decision) -> bool:
        """Note that the forward went the way of ``decision``: it serves the sizes that agree."""
        if self.paused or not self.frames:
            return decision.outcome
        frame = self.frames[-1]
        condition = frame.extents.condition(decision)
        if condition is not None:
            check = frame.graph.call_function(torch._check, (condition,))
            check.meta[DECISION] = decision
        turned = decision.forks and decision.place == self.turned
        return decision.outcome is not turned

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Inside, nothing is recorded."""
        before, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = before

    # ------------------------------------------------------------------ values

    def names(self, module: nn.Module) -> tuple[dict[int, str], dict[int, str]]:
        """Modules and tensors below ``module``, by id: their paths."""
        found = self.owned.get(id(module))
        if found is None:
            modules: dict[int, str] = {}
            tensors: dict[int, str] = {}
            for path, part in module.named_modules(remove_duplicate=False):
                modules.setdefault(id(part), path)
                own = attributes(part).items()
                held = (*part._parameters.items(), *part._buffers.items(), *own)
                for name, value in held:
                    if isinstance(value, torch.Tensor):
                        tensors.setdefault(id(value), f"{path}.{name}" if path else name)
            found = self.owned[id(module)] = (modules, tensors)
        return found

    def to_arguments(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call, which are several values, also if they are all parts of one."""
        given = tuple(self.to_argument(item) for item in args)
        return given, {key: self.to_argument(item) for key, item in kwargs.items()}

    def to_argument(self, value: Any) -> Any:
        """``value`` as an argument of a node in the present frame."""
        frame = self.frames[-1]
        node = frame.node_of(value)
        if node is not None:
            return node
        if isinstance(value, torch.Tensor):
            return self.tensor(value)
        if isinstance(value, (Extent, Ratio)):
            return frame.size(value)
        if isinstance(value, torch.device):
            return self.device(value)
        if isinstance(value, slice):
            return slice(
                *(self.to_argument(part) for part in (value.start, value.stop, value.step))
            )
        if isinstance(value, PackedSequence):
            parts = tuple(self.to_argument(item) for item in value)
            frame.kept.append(value)
            frame.nodes[id(value)] = frame.graph.call_function(PackedSequence, parts)
            return frame.nodes[id(value)]
        if isinstance(value, (torch.Size, tuple, list)):
            items = [self.to_argument(item) for item in value]
            whole = _whole(items)
            if whole is not None and whole.meta["parts"][0] is tuple:
                return whole
            return items if isinstance(value, list) else tuple(items)
        if isinstance(value, Mapping) or is_computed(value):
            return {key: self.to_argument(item) for key, item in items_of(value).items()}
        return value

    def to_output(self, value: Any) -> Any:
        """What a forward returns, as the output of its graph."""
        held = items_of(value)
        if held and not isinstance(value, (torch.Tensor, PackedSequence)):
            items = {key: self.to_output(item) for key, item in held.items()}
            if isinstance(value, (tuple, list)):
                kind = list if isinstance(value, list) else tuple
                whole = _whole(list(items.values()))
                if whole is None:
                    return kind(items.values())
                if whole.meta["parts"][0] is kind:
                    return whole
                return self.frames[-1].graph.call_function(kind, (whole,))
            return items
        if len(self.frames) > 1 and not is_computed(value) and not is_literal(value):
            # An object, such as a cache, that the caller may look into; graphs cannot.
            return None
        return self.to_argument(value)

    def device(self, value: torch.device) -> Any:
        """The device of the data, which is where the model will be, not where it is recorded."""
        frame = self.frames[-1]
        if frame.device is None:
            tensor = next((one for one in frame.kept if isinstance(one, torch.Tensor)), None)
            if tensor is None:
                module = frame.module
                tensor = next(chain(module.parameters(), module.buffers()), None)
            if tensor is None and len(self.frames) > 1:
                raise InlineError(frame.path, "it has no tensor to read the device off")
            if tensor is None:
                return value
            frame.device = frame.graph.call_function(getattr, (self.tensor(tensor), "device"))
        return frame.device

    def tensor(self, value: torch.Tensor) -> torch.fx.Node:
        """The node of a tensor that the forward reads first here."""
        frame = self.frames[-1]
        if id(value) in frame.nodes:
            return frame.nodes[id(value)]
        path = self.names(frame.module)[1].get(id(value))
        if path is None and id(value) in self.names(self.model)[1]:
            raise InlineError(frame.path, "it reads a tensor of a module that is not below it")
        if path is None and any(id(value) in outer.nodes for outer in self.frames[:-1]):
            raise InlineError(frame.path, "it reads a tensor that it was not given")
        if path is None:
            for other in self.finished:
                if id(value) in other.nodes and other.path not in ("", frame.path):
                    raise InlineError(other.path, "what it computes is read elsewhere")
        if path is None:
            path = self.constant(value)
        node = frame.graph.get_attr(path)
        frame.learn(value, node)
        return node

    def constant(self, value: torch.Tensor) -> str:
        """The name of a tensor that no module owns, such as a global of the model's file."""
        frame = self.frames[-1]
        if is_functorch_wrapped_tensor(value):
            raise UnseenError("it maps or derives a function, as torch.vmap and torch.func do")
        if value.is_meta:
            raise UnseenError("a tensor is made where no function of torch shows")
        if type(value) is not torch.Tensor:
            raise UnseenError("a tensor that was computed elsewhere is read")
        name = f"constant{len(frame.constants)}"
        while hasattr(frame.module, name):
            name += "_"
        frame.constants[name] = value
        return name


def _hooked(module: nn.Module, args: Any, kwargs: Any, result: Any) -> Any:
    """``result`` after the hooks that a model gives its own modules while it runs."""
    for number, hook in module._forward_hooks.items():
        named = (kwargs,) if number in module._forward_hooks_with_kwargs else ()
        changed = hook(module, args, *named, result)
        result = result if changed is None else changed
    return result


def _sizes(name: str, result: Any, args: tuple[Any, ...]) -> Any:
    """Sizes of the tensor ``args[0]`` that remember it; any other number as it is."""
    if isinstance(result, torch.Size):
        return shape_of(args[0], result)
    if name == "size" and len(args) == 2:
        return shape_of(args[0], args[0].shape)[int(args[1])]
    if name in ("numel", "nelement"):
        return traced(result, torch.numel, args[0])
    return result


def _whole(items: list[Any]) -> torch.fx.Node | None:
    """The value of which ``items`` are all the parts, however many those are for other sizes."""
    first = items[0] if items else None
    if not isinstance(first, torch.fx.Node) or first.target is not operator.getitem:
        return None
    whole = first.args[0]
    if not isinstance(whole, torch.fx.Node) or whole.meta.get("parts", (None, 0))[1] != len(items):
        return None
    parts = [getattr(item, "args", None) for item in items]
    return whole if parts == [(whole, index) for index in range(len(items))] else None


def _memory(tensor: torch.Tensor) -> int:
    """What tells the memory of ``tensor``, and of its views, from others'."""
    if is_functorch_wrapped_tensor(tensor) or tensor.layout is not torch.strided:
        return id(tensor)
    return int(tensor.untyped_storage()._cdata)


def _rows(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    return iter(tensor.unbind(0))


# Recorded as what they are made of, by name: torch has more than one object for a function.
_UNFOLDED: dict[str, Callable[..., Any]] = {
    "type": typed,
    **{function.__name__: made_of for function, made_of in DECOMPOSED.items()},
    "__iter__": _rows,
    "_is_all_true": torch.Tensor.all,
}
