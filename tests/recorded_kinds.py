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


def padded(batch):
    return torch.randn(batch, 6, 32), torch.arange(6) >= torch.arange(3, 3 + batch)[:, None]


@case(padded, name="padded")
@case(padded, name="padded_norm_first", norm_first=True)
@case(padded, name="padded_without_nesting", nested=False)
@case(padded, name="padded_causal", causal=True)
class PaddedEncoder(nn.Module):
    """Inference packs the sequences, and so clears what is behind their ends."""

    def __init__(self, nested=True, causal=False, **options):
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, **options)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)
        self.causal, self.head = causal, nn.Linear(32, 8)

    def forward(self, x, padding):
        mask = torch.ones(6, 6, dtype=torch.bool).triu(1) if self.causal else None
        return self.head(self.encoder(x, mask, padding))


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


@case(images(32))
class SpectralByHook(nn.Module):
    """Power iteration in a hook, before the layer runs."""

    def __init__(self):
        super().__init__()
        norm = nn.utils.spectral_norm
        self.first = norm(nn.Linear(32, 32), n_power_iterations=2)
        self.second = norm(nn.ConvTranspose1d(32, 24, 1), dim=1)

    def forward(self, x):
        return self.second(self.first(x)[:, :, None]).flatten(1)


@case(images(32, 6))
class AveragingNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv1d(32, 32, 1), nn.BatchNorm1d(32, momentum=None)

    def forward(self, x):
        return self.norm(self.conv(x))
