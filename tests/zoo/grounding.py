"""Phrase grounding with conditional embeddings (Plummer et al., 2018, arXiv 1711.08389).

Regions and a phrase meet in an elementwise product, as in a similarity network (Wang et al., 2018,
arXiv 1704.03470). The product is embedded once for each of several concepts; the phrase says how
much each concept counts, and the weighted embedding is scored.
"""

import torch
from torch import nn
from torch.nn import functional as F


class Projection(nn.Module):
    """Features (..., F) to unit vectors (..., E)."""

    def __init__(self, features: int, hidden: int, embedding: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, hidden)
        self.fc2 = nn.Linear(hidden, embedding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.fc2(F.relu(self.fc1(x))), dim=-1)


class PhraseEncoder(nn.Module):
    """Word ids (B, T) to features (B, H): the last state of a GRU."""

    def __init__(self, vocabulary: int, word: int, state: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, word)
        self.gru = nn.GRU(word, state, batch_first=True)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        _, last = self.gru(self.embedding(ids))
        return last[-1]


class GroundingNetwork(nn.Module):
    """Region features (B, R, F), boxes (B, R, 5) and word ids (B, T) to scores (B, R)."""

    def __init__(
        self,
        features: int,
        vocabulary: int,
        word: int,
        state: int,
        hidden: int,
        embedding: int,
        concepts: int,
    ) -> None:
        super().__init__()
        self.phrase = PhraseEncoder(vocabulary, word, state)
        self.region_projection = Projection(features + 5, hidden, embedding)
        self.phrase_projection = Projection(state, hidden, embedding)
        self.concept_weights = nn.Linear(state, concepts)
        self.concepts = nn.ModuleList(
            nn.Sequential(nn.Linear(embedding, embedding // 2), nn.ReLU()) for _ in range(concepts)
        )
        self.score = nn.Linear(embedding // 2, 1)

    def forward(
        self, regions: torch.Tensor, boxes: torch.Tensor, ids: torch.Tensor
    ) -> torch.Tensor:
        phrase = self.phrase(ids)
        region = self.region_projection(torch.cat([regions, boxes], -1))
        product = region * self.phrase_projection(phrase).unsqueeze(1)
        weights = self.concept_weights(phrase).softmax(-1)
        embedded = torch.stack([concept(product) for concept in self.concepts], 2)
        # The K embeddings lie along the third axis.
        mixed = (embedded * weights[:, None, :, None]).sum(2)
        return self.score(mixed).squeeze(-1)


def grounding(
    features: int = 4096,
    vocabulary: int = 8000,
    word: int = 300,
    state: int = 512,
    hidden: int = 1024,
    embedding: int = 512,
    concepts: int = 4,
) -> GroundingNetwork:
    return GroundingNetwork(features, vocabulary, word, state, hidden, embedding, concepts)


def example_inputs() -> tuple[torch.Tensor, ...]:
    regions = torch.randn(2, 10, 4096)
    return regions, torch.rand(2, 10, 5), torch.arange(1, 13).view(2, 6)
