"""What is known of tensors' values, per storage: views of one storage tell of one another."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from planner.distributions import Distribution, measured, mixture

_Part = tuple[int, tuple[int, ...], tuple[int, ...]]


@dataclass(slots=True)
class _State:
    """What is known of one storage: its distribution, and those of parts written since.

    ``empty`` says that the storage was never written as a whole: its values are not values.
    """

    whole: Distribution | None = None
    parts: dict[_Part, tuple[int, Distribution | None]] = field(default_factory=dict)
    empty: bool = False


class Observations:
    """Distributions by storage. Storages are held weakly, so recording keeps no memory alive."""

    def __init__(self) -> None:
        self._states: dict[int, tuple[StorageWeakRef, _State]] = {}
        self._room = 4096

    def read(self, tensor: torch.Tensor) -> Distribution | None:
        """Distribution of ``tensor``'s elements, or None if unknown."""
        state = self._find(tensor)
        if state is None:
            return None
        if not _is_whole(tensor):
            part = state.parts.get(_part(tensor))
            return state.whole if part is None else part[1]
        written = sum(count for count, _ in state.parts.values())
        if not state.parts or written < _capacity(tensor):
            # A row of zeros for padding doesn't change what the rest is drawn from.
            return state.whole
        known = [(count, one) for count, one in state.parts.values() if one is not None]
        return mixture(known) if len(known) == len(state.parts) else None

    def value(self, tensor: torch.Tensor) -> Distribution | None:
        """As :meth:`read`, and measured where that is unknown and ``tensor`` is real."""
        state = self._find(tensor)
        known = self.read(tensor)
        if tensor.is_meta or (state is not None and state.empty and not state.parts):
            return known
        if known is None or (known.family == "constant" and state is not None and state.parts):
            return measured(tensor)
        return known

    def settle(self, tensor: torch.Tensor) -> None:
        """Measure ``tensor`` now, if it is real and unknown, before its values are let go."""
        if self.read(tensor) != (known := self.value(tensor)):
            self.write(tensor, known)

    def write(self, tensor: torch.Tensor, distribution: Distribution | None) -> None:
        """``tensor``'s elements now have this distribution."""
        state = self._find(tensor) or self.create(tensor)
        if state is None:
            return
        if _is_whole(tensor):
            state.whole, state.empty = distribution, False
            state.parts.clear()
        else:
            state.parts[_part(tensor)] = (tensor.numel(), distribution)

    def create(
        self,
        tensor: torch.Tensor,
        distribution: Distribution | None = None,
        *,
        empty: bool = False,
    ) -> _State | None:
        """A new state for ``tensor``'s storage; None where it has none of its own."""
        storage = _storage(tensor)
        if storage is None:
            return None
        state = _State(distribution, empty=empty)
        self._keep(storage, state)
        return state

    def link(self, other: torch.Tensor, tensor: torch.Tensor) -> None:
        """From now on the storages of ``other`` and ``tensor`` have one state."""
        storage, state = _storage(other), self._find(tensor) or self.create(tensor)
        if storage is not None and state is not None:
            self._keep(storage, state)

    def _find(self, tensor: torch.Tensor) -> _State | None:
        storage = _storage(tensor)
        if storage is None:
            return None
        # The weak reference keeps the address of a freed storage from being used again.
        found = self._states.get(storage._cdata)  # noqa: SLF001
        return None if found is None else found[1]

    def _keep(self, storage: torch.UntypedStorage, state: _State) -> None:
        if len(self._states) >= self._room:
            self._states = {
                key: kept
                for key, kept in self._states.items()
                if not kept[0].expired()  # type: ignore[no-untyped-call]
            }
            self._room = max(4096, 2 * len(self._states))
        key = int(storage._cdata)  # noqa: SLF001
        self._states[key] = (
            StorageWeakRef(storage),  # type: ignore[no-untyped-call]
            state,
        )


def address(tensor: torch.Tensor) -> int | None:
    """What tells storages apart while they live; None for a tensor without one."""
    storage = _storage(tensor)
    return None if storage is None else int(storage._cdata)  # noqa: SLF001


def _storage(tensor: torch.Tensor) -> torch.UntypedStorage | None:
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError, ValueError):  # sparse, wrapped or lazy
        return None


def _capacity(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().nbytes() // tensor.element_size()


def _is_whole(tensor: torch.Tensor) -> bool:
    return tensor.numel() == _capacity(tensor)


def _part(tensor: torch.Tensor) -> _Part:
    return int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride()
