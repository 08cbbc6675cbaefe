"""What was found out about one module, used again for those that are like it.

Deep models repeat their blocks. What a forward does is decided by its class, by its arguments, and
by what it reads of its modules. So while the forward of one block runs, every attribute that it
reads is noted, with the value; a later block of the same structure, called with the like, whose
attributes have the same values does the same, and need not run. An attribute that tells blocks
apart and is never read (their number, say) keeps nothing from being used again; one that is read
does. These are the guards of a tracing compiler, at the level of modules.

Nothing is used again of a forward that sets attributes, looks through ``__dict__``, or changes the
containers that it reads; nor where a class has attribute access of its own.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from planner.tracing.keys import attribute, attributes, key_of, look, placed

T = TypeVar("T")

_STRUCTURE = frozenset(("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"))
_MACHINERY = nn.Module.__init__.__code__.co_filename


@dataclass(frozen=True, slots=True)
class _Block:
    """A module, and the modules and tensors in it by their positions, each at its first."""

    structure: Hashable
    objects: list[Any]
    positions: dict[int, int]


@dataclass(slots=True)
class _Frame:
    """A forward that runs, and what it read so far; ``kept`` keeps ids from being used again.

    ``spoilt`` says that it did what cannot be done again by not running.
    """

    reads: dict[tuple[int, str], Hashable] = field(default_factory=dict)
    owners: dict[int, nn.Module] = field(default_factory=dict)
    kept: list[Any] = field(default_factory=list)
    spoilt: bool = False

    def add(self, owner: nn.Module, name: str, key: Hashable) -> None:
        """Note a read, unless it was read before."""
        self.owners[id(owner)] = owner
        self.reads.setdefault((id(owner), name), key)

    def join(self, other: _Frame) -> None:
        """Note what ``other`` read as well."""
        self.spoilt |= other.spoilt
        self.kept.extend(other.kept)
        for (owner, name), key in other.reads.items():
            self.add(other.owners[owner], name, key)

    def unchanged(self) -> bool:
        """Whether everything that was read has the value that it had."""
        return all(
            key_of(attribute(self.owners[owner], name), self.kept) == key
            for (owner, name), key in self.reads.items()
        )


@dataclass(frozen=True, slots=True)
class _Made(Generic[T]):
    """What came of one forward, and the reads on which that rests: (owner, its place, name, key).

    A place is None for what stands outside the block, which is compared by identity.
    """

    value: T
    reads: tuple[tuple[nn.Module, int | None, str, Hashable], ...]
    kept: list[Any]


class Repeats(Generic[T]):
    """What came of the forwards of ``model``'s blocks, for blocks that are like them.

    Args:
        model: keeps its structure as long as this is used.
        marks: what else tells modules apart, by their ``id``.
        unread: attributes of which the marks tell.
    """

    def __init__(
        self,
        model: nn.Module,
        marks: Mapping[int, Hashable] | None = None,
        unread: frozenset[str] = frozenset(),
    ) -> None:
        self._marks = marks or {}
        self._unread = _STRUCTURE | unread
        self._numbers: dict[Hashable, int] = {}
        self._kinds: dict[int, int] = {}
        self._blocks: dict[int, _Block] = {}
        self._made: dict[Hashable, list[_Made[T]]] = {}
        self._frames: list[_Frame] = []
        counts: dict[int, int] = {}
        for module in model.modules():
            kind = self.kind(module)
            counts[kind] = counts.get(kind, 0) + 1
        self._repeated = {kind for kind, count in counts.items() if count > 1}

    def kind(self, module: nn.Module) -> int:
        """A number that modules share if they look alike, all that is in them included."""
        known = self._kinds.get(id(module))
        if known is None:
            own = attributes(module).items()
            held = {key: one for key, one in own if isinstance(one, torch.Tensor)}
            looks = (
                type(module) if _is_seen(type(module)) else id(module),
                self._marks.get(id(module)),
                tuple(
                    tuple((name, one if one is None else look(one)) for name, one in of.items())
                    for of in (module._parameters, module._buffers, held)
                ),
                tuple(
                    (name, child if child is None else self.kind(child))
                    for name, child in module._modules.items()
                ),
            )
            known = self._kinds[id(module)] = self._numbers.setdefault(looks, len(self._numbers))
        return known

    def _block(self, module: nn.Module) -> _Block:
        block = self._blocks.get(id(module))
        if block is None:
            order: list[int] = []
            positions: dict[int, int] = {}
            objects: list[Any] = []
            for part in module.modules():
                held = [one for one in attributes(part).values() if isinstance(one, torch.Tensor)]
                groups = (part._modules, part._parameters, part._buffers)
                for one in (part, *(one for of in groups for one in of.values()), *held):
                    if id(one) not in positions:
                        positions[id(one)] = len(objects)
                        objects.append(one)
                    order.append(positions[id(one)])
            # The order says which of them are one and the same.
            block = _Block((self.kind(module), tuple(order)), objects, positions)
            self._blocks[id(module)] = block
        return block

    def repeated(self, module: nn.Module) -> bool:
        """Whether the model has another module that looks like ``module``."""
        return self._kinds.get(id(module)) in self._repeated

    def find(
        self, module: nn.Module, call: Hashable, fits: Callable[[T], bool] = lambda _: True
    ) -> T | None:
        """What came of a module like ``module`` in the same ``call``, if it holds for this one.

        What the other's forward read counts as read by the forward that runs.

        Args:
            module: of the model.
            call: equal for calls that are alike; None for one that is like no other.
            fits: whether what came of another will do.
        """
        if call is None or not self.repeated(module):
            return None
        block = self._block(module)
        for made in self._made.get((block.structure, call), ()):
            if fits(made.value):
                read = _read_again(made, block)
                if read is not None:
                    for frame in self._frames[-1:]:
                        frame.join(read)
                    return made.value
        return None

    @contextmanager
    def running(self, module: nn.Module, call: Hashable) -> Iterator[Callable[[T], None]]:
        """Note what the forward of ``module`` reads inside; what is given came of it."""
        if call is None or not self.repeated(module):
            yield list[T]().append
            return
        frame, results = _Frame(), list[T]()
        self._frames.append(frame)
        try:
            yield results.append
        finally:
            self._frames.pop()
            for outer in self._frames[-1:]:
                outer.join(frame)
        if results and not frame.spoilt and frame.unchanged():
            block = self._block(module)
            reads = tuple(
                (frame.owners[one], block.positions.get(one), name, placed(key, block.positions))
                for (one, name), key in frame.reads.items()
            )
            made = _Made(results[0], reads, frame.kept)
            self._made.setdefault((block.structure, call), []).append(made)

    def spoil(self) -> None:
        """The forward that runs does what cannot be done again by not running it."""
        for frame in self._frames[-1:]:
            frame.spoilt = True

    def _note(self, module: nn.Module, name: str, reader: types.FrameType) -> None:
        frame = self._frames[-1]
        if name in self._unread or (id(module), name) in frame.reads:
            return
        if name == "__dict__":
            frame.spoilt |= not _is_ours(reader)
        elif not name.startswith("__"):
            frame.add(module, name, key_of(attribute(module, name), frame.kept))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, what is read of modules is noted for the forwards that run."""
        write, delete = nn.Module.__setattr__, nn.Module.__delattr__

        def get(module: nn.Module, name: str) -> Any:
            if self._frames:
                self._note(module, name, sys._getframe(1))
            return object.__getattribute__(module, name)

        def put(module: nn.Module, name: str, value: Any) -> None:
            self.spoil()
            write(module, name, value)

        def drop(module: nn.Module, name: str) -> None:
            self.spoil()
            delete(module, name)

        nn.Module.__getattribute__ = get  # type: ignore[method-assign,assignment]
        nn.Module.__setattr__ = put  # type: ignore[method-assign,assignment]
        nn.Module.__delattr__ = drop  # type: ignore[method-assign]
        try:
            yield
        finally:
            del nn.Module.__getattribute__
            nn.Module.__setattr__ = write  # type: ignore[method-assign]
            nn.Module.__delattr__ = delete  # type: ignore[method-assign]


def distinct_parameters(model: nn.Module) -> int:
    """Parameters of ``model``; of modules that look alike, those of one alone."""
    kinds = Repeats[None](model)
    seen: set[int] = set()

    def count(module: nn.Module) -> int:
        kind = kinds.kind(module)
        if kind in seen:
            return 0
        seen.add(kind)
        own = sum(one.numel() for one in module._parameters.values() if one is not None)
        return own + sum(count(child) for child in module.children())

    return count(model)


def _is_ours(reader: types.FrameType) -> bool:
    """Whether torch's modules or this package read, which look for nothing a forward depends on."""
    ours = reader.f_globals.get("__package__") == __package__
    return ours or reader.f_code.co_filename == _MACHINERY


def _is_seen(kind: type[nn.Module]) -> bool:
    """Whether attributes of such modules are read and set as ``nn.Module`` has it."""
    names = ("__getattribute__", "__setattr__", "__delattr__")
    owners = [base for base in kind.__mro__ if base not in (nn.Module, object)]
    return not any(name in vars(base) for base in owners for name in names)


def _read_again(made: _Made[Any], block: _Block) -> _Frame | None:
    """The reads of ``made`` in ``block``; None if one has another value there."""
    frame = _Frame()
    for outsider, place, name, wanted in made.reads:
        owner = outsider if place is None else block.objects[place]
        key = key_of(attribute(owner, name), frame.kept)
        if placed(key, block.positions) != wanted:
            return None
        frame.add(owner, name, key)
    return frame
