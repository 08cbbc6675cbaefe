"""A two-layer LSTM language model (Zaremba et al., 2014, arXiv 1409.2329), unregularised."""

import torch
from torch import nn


class LSTMLM(nn.Module):
    """Token ids (B, T) to logits (B, T, vocabulary)."""

    def __init__(self, vocabulary: int, width: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, num_layers=layers, batch_first=True)
        self.decoder = nn.Linear(width, vocabulary)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.lstm(self.embedding(ids))
        return self.decoder(hidden)


def lstm_lm(vocabulary: int = 1000, width: int = 256, layers: int = 2) -> LSTMLM:
    return LSTMLM(vocabulary, width, layers)


def example_inputs() -> tuple[torch.Tensor, ...]:
    return (torch.zeros(2, 32, dtype=torch.int64),)
