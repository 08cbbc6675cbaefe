"""What torch itself builds from: transformers, recurrent networks; and small hard models."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

import hard_operations
import hard_states
from benchmarks.coverage.case import Case, Inputs, tensors
from hard_models import CASES as HARD

WIDTH, HEADS, LENGTH, VOCABULARY = 32, 4, 7, 100

# They add their models to the table of hard ones as they are imported.
assert hard_operations and hard_states


def cases() -> list[Case]:
    """All of them."""
    return [*_transformers(), *_recurrent(), *map(_hard, HARD)]


def _case(
    name: str,
    build: Callable[[], nn.Module],
    inputs: Callable[[int], Inputs],
    task: str = "layers",
) -> Case:
    return Case(f"torch:{name}", "torch", task, build, inputs)


# --------------------------------------------------------------------------- transformers


def _transformers() -> list[Case]:
    found = []
    sequence, pair = tensors((LENGTH, WIDTH)), tensors((LENGTH, WIDTH), (LENGTH + 2, WIDTH))
    for first in (True, False):
        options = {"batch_first": first, "dim_feedforward": 64}
        suffix = "" if first else "_length_first"
        one, two = (sequence, pair) if first else (_transposed(sequence), _transposed(pair))
        found += [
            _case(f"TransformerEncoder{suffix}", functools.partial(_encoder, **options), one),
            _case(f"TransformerDecoder{suffix}", functools.partial(_decoder, **options), two),
            _case(f"Transformer{suffix}", functools.partial(_transformer, **options), two),
        ]
    first = {"batch_first": True, "dim_feedforward": 64}
    return [
        *found,
        _case(
            "TransformerEncoder_norm_first", lambda: _encoder(**first, norm_first=True), sequence
        ),
        _case("TransformerEncoder_gelu", lambda: _encoder(**first, activation="gelu"), sequence),
        _case("TransformerEncoder_padding", Padded, _padded),
        _case("TransformerDecoder_causal", Causal, _ids),
        _case("MultiheadAttention", Attention, pair),
        _case("MultiheadAttention_widths", Widths, tensors((LENGTH, WIDTH), (LENGTH, 16))),
    ]


def _transposed(inputs: Callable[[int], Inputs]) -> Callable[[int], Inputs]:
    """The same sequences with their length first."""
    return lambda batch: tuple(one.transpose(0, 1) for one in inputs(batch))


def _encoder(**options: object) -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, HEADS, **options), 2)


def _decoder(**options: object) -> nn.Module:
    layer = nn.TransformerDecoderLayer(WIDTH, HEADS, **options)
    return nn.TransformerDecoder(layer, 2, nn.LayerNorm(WIDTH))


def _transformer(**options: object) -> nn.Module:
    return nn.Transformer(WIDTH, HEADS, 2, 2, **options)


class Padded(nn.Module):
    """An encoder of padded sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _encoder(batch_first=True, dim_feedforward=64)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        return self.encoder(x, src_key_padding_mask=padding)


def _padded(batch: int) -> Inputs:
    lengths = torch.arange(batch)[:, None] + 3
    return torch.randn(batch, LENGTH, WIDTH), torch.arange(LENGTH)[None] >= lengths


class Causal(nn.Module):
    """A language model with a causal mask, and tied embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.encoder = _encoder(batch_first=True, dim_feedforward=64)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        return self.head(self.encoder(self.embed(ids), mask=mask, is_causal=True))


class Attention(nn.Module):
    """Attention alone, with its weights among the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, dropout=0.1, batch_first=True)

    def forward(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        return self.attention(x, memory, memory, average_attn_weights=False)


class Widths(nn.Module):
    """Keys and values of a width of their own, so that projections are separate tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(
            WIDTH, HEADS, kdim=16, vdim=16, batch_first=True, add_bias_kv=True
        )

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        return self.attention(x, memory, memory, need_weights=False)[0]


# --------------------------------------------------------------------------- recurrent networks


def _recurrent() -> list[Case]:
    found = []
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        for label, options in (
            ("", {}),
            ("_layers", {"num_layers": 2, "dropout": 0.2}),
            ("_bidirectional", {"num_layers": 2, "bidirectional": True}),
        ):
            build = lambda kind=kind, options=options: Recurrent(kind, **options)  # noqa: E731
            found.append(_case(f"{kind.__name__}{label}", build, _ids))
    return [
        *found,
        _case("LSTM_projections", lambda: Recurrent(nn.LSTM, proj_size=16), _ids),
        _case("LSTM_alone", lambda: nn.LSTM(WIDTH, 16, batch_first=True), tensors((LENGTH, WIDTH))),
        _case("GRU_cells", Cells, tensors((LENGTH, WIDTH))),
        _case("EmbeddingBag", Bags, _ids),
    ]


class Recurrent(nn.Module):
    """Tagger and classifier in one: reads states at every step, and the last ones."""

    def __init__(self, kind: type[nn.RNNBase], **options: object) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.rnn = kind(WIDTH, WIDTH, batch_first=True, **options)
        width = (self.rnn.proj_size or WIDTH) * (2 if self.rnn.bidirectional else 1)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        states, last = self.rnn(self.embed(ids))
        hidden = last[0] if isinstance(last, tuple) else last
        return self.head(states), hidden[-1]


class Cells(nn.Module):
    """A loop over cells."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros_like(x[:, 0])
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return state


class Bags(nn.Module):
    """A classifier of bags of words."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.EmbeddingBag(VOCABULARY, WIDTH, mode="mean")
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embed(ids))


def _ids(batch: int) -> Inputs:
    return (torch.randint(VOCABULARY, (batch, LENGTH)),)


# --------------------------------------------------------------------------- hard models


def _hard(name: str) -> Case:
    build, shapes = HARD[name]

    def inputs(batch: int) -> Inputs:
        return tuple(_tensor(shape, batch) for shape in shapes)

    return _case(f"hard/{name}", build, inputs, "hard models")


def _tensor(given: tuple[object, ...], batch: int) -> Tensor:
    """Of the table's shapes, or pairs of a shape and a dtype, whose first axis is the batch."""
    shape, dtype = given if isinstance(given[0], tuple) else (given, torch.float32)
    size = (batch, *shape[1:])
    return torch.randint(0, 5, size) if dtype == torch.int64 else torch.randn(size)
