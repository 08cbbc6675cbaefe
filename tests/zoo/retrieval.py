"""Image-sentence retrieval with two branches (Wang et al., 2018, arXiv 1704.03470).

Features of an image, and words read by a GRU, are each mapped by two layers to a point on the unit
sphere of one space, where matching pairs lie close.
"""

import torch
from torch import nn
from torch.nn import functional as F


class Branch(nn.Module):
    """Features (B, F) to unit vectors (B, E)."""

    def __init__(self, features: int, hidden: int, embedding: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, hidden)
        self.bn = nn.BatchNorm1d(hidden)
        self.dropout = nn.Dropout(0.5)
        self.fc2 = nn.Linear(hidden, embedding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.dropout(F.relu(self.bn(self.fc1(x))))
        return F.normalize(self.fc2(x), dim=-1)


class SentenceEncoder(nn.Module):
    """Word ids (B, T), 0 for padding, to features (B, H): the mean of a GRU's states."""

    def __init__(self, vocabulary: int, word: int, state: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, word, padding_idx=0)
        self.gru = nn.GRU(word, state, batch_first=True)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        states, _ = self.gru(self.embedding(ids))
        words = (ids != 0).unsqueeze(-1).to(states.dtype)
        return (states * words).sum(1) / words.sum(1).clamp(min=1)


class RetrievalNetwork(nn.Module):
    """Image features (B, F) and word ids (B, T) to their embeddings, each (B, E)."""

    def __init__(
        self, features: int, vocabulary: int, word: int, state: int, hidden: int, embedding: int
    ) -> None:
        super().__init__()
        self.sentence = SentenceEncoder(vocabulary, word, state)
        self.image_branch = Branch(features, hidden, embedding)
        self.text_branch = Branch(state, hidden, embedding)

    def forward(self, image: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.image_branch(image), self.text_branch(self.sentence(ids))


def retrieval(
    features: int = 2048,
    vocabulary: int = 8000,
    word: int = 300,
    state: int = 1024,
    hidden: int = 2048,
    embedding: int = 512,
) -> RetrievalNetwork:
    return RetrievalNetwork(features, vocabulary, word, state, hidden, embedding)


def example_inputs() -> tuple[torch.Tensor, ...]:
    return torch.randn(2, 2048), torch.arange(1, 25).view(2, 12)
