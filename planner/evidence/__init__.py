"""Evidence: which sites may share a bank, and how unlike they are.

From shapes alone (``shape``), from a trained probe's coefficients (``learned``), from how the
gradients of a probe's sites agree (``gradient``), or from trained weights (``checkpoint``).
"""

from planner.evidence.learned import SPREAD
from planner.evidence.shape import (
    HEIGHTS,
    STD_WINDOW,
    dissimilarity,
    grouped_evidence,
    shape_evidence,
    sigma,
)
from planner.evidence.sources import evidence_source

__all__ = [
    "HEIGHTS",
    "SPREAD",
    "STD_WINDOW",
    "dissimilarity",
    "evidence_source",
    "grouped_evidence",
    "shape_evidence",
    "sigma",
]
