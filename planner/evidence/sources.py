"""What ``evidence`` asks for: ``shape``, ``learned:FILE[,groups=N]``, ``gradient:FILE``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from planner.errors import EvidenceError
from planner.evidence.gradient import gradient_evidence, read_agreement
from planner.evidence.learned import Groups, learned_evidence, read_coefficients
from planner.evidence.shape import shape_evidence
from planner.evidence.tensors import read_tensors
from planner.ir import Evidence, Site

KINDS = ("shape", "learned:FILE[,groups=N]", "gradient:FILE", "checkpoint:FILE")

Gather: TypeAlias = Callable[[Sequence[Site]], Evidence]
"""The evidence on given sites; an EvidenceError where they are others than a file is about."""


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
        return lambda _: asked
    if asked == "shape":
        return shape_evidence
    kind, colon, rest = asked.partition(":")
    file, *options = rest.split(",")
    if not colon or not file or kind not in ("learned", "gradient"):
        raise EvidenceError(f"evidence {asked!r} is not known: use {', '.join(KINDS)}")
    chosen = _groups(asked, kind, options)
    text = ",".join([f"{kind}:{Path(file).name}", *options])
    tensors = read_tensors(Path(file))
    if kind == "gradient":
        agreement = read_agreement(file, tensors)
        return lambda sites: gradient_evidence(sites, agreement, text)
    coefficients = read_coefficients(file, tensors)
    return lambda sites: learned_evidence(sites, coefficients, text, chosen)


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
