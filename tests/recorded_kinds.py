"""Kinds of parameters in modules that plain symbolic tracing cannot capture; see site_kinds.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from site_kinds import Parametrized, case, images


@case(images(6, 32))
class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(32))

    def forward(self, x):
        return self.encoder(x)


@case(lambda batch: (torch.randn(batch, 6, 32), torch.randn(batch, 4, 32)))
class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerDecoderLayer(32, 4, 64, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, 2)

    def forward(self, x, memory):
        return self.decoder(x, memory)


@case(lambda batch: (torch.randn(batch, 6, 32), torch.randn(batch, 4, 32)))
class MaskedTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Transformer(32, 4, 2, 2, 64, batch_first=True, activation=F.silu)

    def forward(self, source, target):
        mask = nn.Transformer.generate_square_subsequent_mask(4)
        return self.model(source, target, tgt_mask=mask)


@case(images(32))
class ListedParameters(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(32, 32) / 5) for _ in range(3))

    def forward(self, x):
        for weight in self.weights:
            x = torch.tanh(x @ weight)
        return x @ self.weights[0]


# --------------------------------------------------------------------------- parametrized


@case(images(32), name="spectral_norm", kind="spectral_norm")
@case(images(32), name="orthogonal", kind="orthogonal")
class Reparametrized(Parametrized):
    """Power iteration without gradients, and a matrix exponential."""


@case(images(32, 6))
class AveragingNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv1d(32, 32, 1), nn.BatchNorm1d(32, momentum=None)

    def forward(self, x):
        return self.norm(self.conv(x))
