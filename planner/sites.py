"""Parameters → sites: every tensor once, with where it stands and how it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from planner.errors import UnsupportedSiteError
from planner.ir import Buffer, Initial, Program, Site
from planner.topology import layers, nearest, places, role

if TYPE_CHECKING:
    from torch import nn

VECTOR_LIMIT = 65536
"""Largest vector (one axis) that keeps its own parameters without being asked."""

_GENERATED = ("float32", "float64", "float16", "bfloat16")


def find_sites(
    model: nn.Module,
    program: Program,
    initials: Mapping[str, Initial],
    values: Mapping[str, Buffer] | None = None,
) -> tuple[Site, ...]:
    """The sites of ``model`` in the order of its parameters; tied tensors are one site.

    Args:
        model: the module that was captured.
        program: what it was captured as.
        initials: how each tensor starts, by its first name.
        values: of frozen tensors that the model computes.

    Raises:
        UnsupportedSiteError: a parameter stands where the program has no module, or holds integers.
    """
    where = {place.path: place for place in places(program)}
    found = {layer.path: layer for layer in layers(program)}
    names: dict[int, list[str]] = {}
    tensors = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
        tensors[id(parameter)] = parameter
    repeats: dict[str, int] = {}
    sites: list[Site] = []
    for key, parameter in tensors.items():
        name, *aliases = names[key]
        path, _, attribute = name.rpartition(".")
        place = where.get(nearest(path, where))
        if place is None:
            raise UnsupportedSiteError(
                f"parameter {name!r} belongs to a module that the program does not contain",
                site=name,
            )
        if not (parameter.is_floating_point() or parameter.is_complex()):
            raise UnsupportedSiteError(
                f"parameter {name!r} holds {str(parameter.dtype).removeprefix('torch.')} numbers, "
                "which no initialiser draws: register it as a buffer",
                site=name,
            )
        inner = path[len(place.path) :].lstrip(".")
        owner = type(model.get_submodule(path)).__name__ if inner else place.type
        role_name = ".".join(part for part in role(place, path, attribute) if part)
        readers = [nearest(one.rpartition(".")[0], where) for one in (name, *aliases)]
        read = [found[reader] for reader in (*readers, name, *aliases) if reader in found]
        # Where the forward could not be captured, every tensor is taken to be read.
        uses = sum(layer.uses for layer in read) or int(bool(program.obstacle))
        repeat = repeats.get(role_name, 0)
        repeats[role_name] = repeat + 1
        site = Site(
            name=name,
            aliases=tuple(aliases),
            owner=owner,
            parameter=attribute,
            shape=tuple(parameter.shape),
            dtype=str(parameter.dtype).removeprefix("torch."),
            initial=initials[name],
            role=role_name,
            repeat=repeat,
            depth=min((layer.depth for layer in read), default=0),
            uses=uses,
            trainable=parameter.requires_grad,
            values=(values or {}).get(name),
        )
        sites.append(_with_reason(site))
    return tuple(sites)


def _with_reason(site: Site) -> Site:
    reason = None
    rows, columns = site.matrix
    if not site.trainable:
        reason = "frozen: not trainable"
    elif site.dtype not in _GENERATED:
        reason = f"{site.dtype} tensors are not generated"
    elif site.uses == 0:
        reason = "not read by forward"
    elif min(rows, columns) <= 1 and site.size <= VECTOR_LIMIT:
        if "Norm" in site.owner:
            reason = "normalisation"
        elif site.parameter.startswith("bias") or site.parameter.endswith("bias"):
            reason = "bias"
        else:
            reason = "vector"
    return replace(site, kept=reason)


def dense_parameters(sites: Sequence[Site]) -> int:
    """Trainable scalars of the dense model, each tensor once."""
    return sum(site.size for site in sites if site.trainable)
