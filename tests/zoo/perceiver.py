"""Perceivers for images (Jaegle et al., 2021, arXiv 2103.03206).

An array of latents reads the pixels by cross attention, is processed by a transformer, and does
both again and again. The paper's ImageNet model has 512 latents of width 1024, 64 bands, 8 repeats
of a cross attention and a transformer of depth 6. Of its cross attentions all but the first share
weights, as do all its transformers: 44.9 million parameters, and 326.2 million with no sharing.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Queries (B, N, width) read (B, M, channels) with heads of ``inner`` channels in all."""

    def __init__(self, width: int, channels: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, inner)
        self.key = nn.Linear(channels, inner)
        self.value = nn.Linear(channels, inner)
        self.out = nn.Linear(inner, width)

    def forward(self, x: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            layer.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query(x), self.key(read), self.value(read))
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Latents read the inputs; pre-normalised, with an MLP as wide as the latents."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.input_norm = nn.LayerNorm(channels)
        self.attention = Attention(width, channels, channels, heads=1)
        self.mlp = MLP(width)

    def forward(self, latents: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        latents = latents + self.attention(self.norm(latents), self.input_norm(inputs))
        return latents + self.mlp(latents)


class MLP(nn.Module):
    """Normalisation and two layers of one width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class SelfAttention(nn.Module):
    """A transformer's block on the latents."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, width, width, heads)
        self.mlp = MLP(width)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        normed = self.norm(latents)
        latents = latents + self.attention(normed, normed)
        return latents + self.mlp(latents)


class Perceiver(nn.Module):
    """Images (B, 3, S, S) to logits (B, num_classes)."""

    def __init__(
        self,
        image_size: int,
        bands: int,
        latents: int,
        width: int,
        repeats: int,
        depth: int,
        heads: int,
        num_classes: int,
        *,
        shared: bool,
    ) -> None:
        super().__init__()
        self.register_buffer("positions", torch.linspace(-1, 1, image_size), persistent=False)
        frequencies = torch.linspace(1, image_size / 2, bands)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.latents = nn.Parameter(torch.empty(latents, width))
        nn.init.trunc_normal_(self.latents, std=0.02)
        # Of each axis the position itself, and a sine and a cosine for each band.
        channels = 3 + 2 * (2 * bands + 1)

        def transformer() -> nn.Sequential:
            return nn.Sequential(*(SelfAttention(width, heads) for _ in range(depth)))

        own = 1 if shared else repeats
        first, rest = CrossAttention(width, channels), range(1, repeats)
        crosses = [CrossAttention(width, channels) for _ in rest[:own]]
        transformers = [transformer() for _ in range(own)]
        self.crosses = nn.ModuleList([first, *(crosses[n % own - 1] for n in rest)])
        self.transformers = nn.ModuleList(transformers[n % own] for n in range(repeats))
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, num_classes)

    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        size = self.positions.shape[0]
        return (torch.randn(2, 3, size, size),)

    def fourier_features(self) -> torch.Tensor:
        """Positions of all pixels (S, S, 2 (2 bands + 1))."""
        angles = math.pi * self.positions[:, None] * self.frequencies
        axis = torch.cat([self.positions[:, None], angles.sin(), angles.cos()], -1)
        size = axis.shape[0]
        rows = axis[:, None].expand(size, size, -1)
        columns = axis[None].expand(size, size, -1)
        return torch.cat([rows, columns], -1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pixels = x.flatten(2).transpose(1, 2)
        positions = self.fourier_features().flatten(0, 1).expand(x.shape[0], -1, -1)
        inputs = torch.cat([pixels, positions], -1)
        latents = self.latents.expand(x.shape[0], -1, -1)
        for cross, transformer in zip(self.crosses, self.transformers, strict=True):
            latents = transformer(cross(latents, inputs))
        return self.fc(self.norm(latents.mean(1)))


def perceiver(
    image_size: int = 32,
    bands: int = 8,
    latents: int = 32,
    width: int = 64,
    repeats: int = 3,
    depth: int = 2,
    heads: int = 4,
    num_classes: int = 10,
    *,
    shared: bool = True,
) -> Perceiver:
    return Perceiver(
        image_size, bands, latents, width, repeats, depth, heads, num_classes, shared=shared
    )


def example_inputs() -> tuple[torch.Tensor, ...]:
    return perceiver().example_inputs()
