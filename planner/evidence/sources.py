"""What ``evidence`` asks for: shapes alone, or a file of what training has found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from planner.errors import EvidenceError
from planner.evidence.checkpoint import checkpoint_evidence, match_weights, read_checkpoint
from planner.evidence.gradient import gradient_evidence, read_agreement
from planner.evidence.learned import Groups, learned_evidence, read_coefficients
from planner.evidence.shape import shape_evidence
from planner.evidence.tensors import read_tensors
from planner.ir import Evidence, Site

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

KINDS = ("shape", "learned:FILE[,groups=N]", "gradient:FILE", "checkpoint:FILE")

Weights: TypeAlias = "Mapping[str, NDArray[np.float64]]"
"""Trained matrices by site."""

Gather: TypeAlias = "Callable[[Sequence[Site]], tuple[Evidence, Weights]]"
"""The evidence on given sites, and their trained weights as far as it holds any.

An EvidenceError where they are others than a file is about.
"""


def evidence_source(asked: str | Evidence) -> Gather:
    """What ``asked`` stands for; a file is read now, before anything slow.

    A plan records a file by its name alone, so that the plan is the same wherever the file is.

    Raises:
        EvidenceError: there is no such kind of evidence, its file cannot be read, or groups that
            are given do not say of each member how unlike the others it is, from 0 to 1.
    """
    if isinstance(asked, Evidence):
        for group in asked.groups:
            unlike = group.dissimilarity
            if len(unlike) != len(group.members) or not all(0 <= one <= 1 for one in unlike):
                raise EvidenceError(
                    f"group {group.name} needs a dissimilarity from 0 to 1 for each of its members"
                )
        return lambda _: (asked, {})
    if asked == "shape":
        return lambda sites: (shape_evidence(sites), {})
    kind, colon, rest = asked.partition(":")
    if kind == "checkpoint" and rest:
        return _trained(rest, read_checkpoint(rest))
    file, *options = rest.split(",")
    if not colon or not file or kind not in ("learned", "gradient"):
        raise EvidenceError(f"evidence {asked!r} is not known: use {', '.join(KINDS)}")
    chosen = _groups(asked, kind, options)
    text = ",".join([f"{kind}:{Path(file).name}", *options])
    tensors = read_tensors(Path(file))
    if kind == "gradient":
        agreement = read_agreement(file, tensors)
        return lambda sites: (gradient_evidence(sites, agreement, text), {})
    coefficients = read_coefficients(file, tensors)
    return lambda sites: (learned_evidence(sites, coefficients, text, chosen), {})


def _trained(file: str, state: Mapping[str, Tensor]) -> Gather:
    def gather(sites: Sequence[Site]) -> tuple[Evidence, Weights]:
        weights = match_weights(file, state, sites)
        return checkpoint_evidence(sites, weights, f"checkpoint:{Path(file).name}"), weights

    return gather


def _groups(asked: str, kind: str, options: Sequence[str]) -> Groups:
    """The number of groups that is asked for."""
    if not options:
        return "silhouette"
    name, _, value = options[0].partition("=")
    if kind != "learned" or len(options) > 1 or name != "groups":
        raise EvidenceError(f"evidence {asked!r}: the one option there is is learned:FILE,groups=N")
    if value in ("silhouette", "any"):
        return "any" if value == "any" else "silhouette"
    if not (value.isascii() and value.isdecimal() and int(value) > 0):
        raise EvidenceError(
            f"evidence {asked!r}: groups={value} must be a number from 1, 'silhouette', or 'any', "
            "which leaves it to the solver"
        )
    return int(value)
