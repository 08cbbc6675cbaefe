"""What torch's encoder does in inference alone: it packs padded sequences as nested tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from planner.tracing.faults import UnseenError


def refuse_nesting(module: nn.Module, given: Mapping[str, Any]) -> None:
    """Stop at an encoder of torch's that is entered and would pack padded sequences in inference.

    That clears what lies behind their ends, on a way that only torch's own class takes.

    Raises:
        UnseenError: ``module`` is such an encoder, called with ``given``.
    """
    if not isinstance(module, nn.TransformerEncoder) or not module.use_nested_tensor:
        return
    if isinstance(given.get("src_key_padding_mask"), torch.Tensor):
        raise UnseenError(
            "an encoder of torch that is the model itself, or a class derived from one, packs "
            "padded sequences in inference: build it with enable_nested_tensor=False, or make it "
            "a part of the model"
        )
