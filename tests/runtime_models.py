"""Small architectures around which the tests render the runtime, and their fixtures."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from runtime_rendering import Root, Runtime, layer, load, render

KINDS = ("mix", "interpolate", "tile", "hash", "lowrank", "tie")

CNN = """
class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.blocks = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1) for _ in range(3)])
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.gain = nn.Parameter(torch.empty(1, 8, 1, 1))
        self.shift = nn.Parameter(torch.empty(8))
        self.register_buffer("grid", torch.arange(8.0), persistent=False)
        self.fc = nn.Linear(8, 10)

    def reset_parameters(self) -> None:
        nn.init.constant_(self.shift, 0.5)
        self.grid.copy_(torch.arange(8.0))
        for layer in (self.stem, *self.blocks, self.up, self.fc):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        for block in self.blocks:
            x = x + torch.relu(block(x) * self.gain)
        x = self.up(x).mean((2, 3))
        return self.fc(x + self.shift + 0.1 * self.grid)
"""

CNN_TABLES = """
BANKS: dict[str, dict[str, Any]] = {
    "a": {"size": 1478, "std": 0.1, "coefficients": 10},
    "b": {"size": 40, "std": 0.3},
    "c": {"size": 80, "std": 0.1},
}
SITES: dict[str, Generator] = {
    "gain": Tile(bank="a", start=1476, coefficient=8, count=2, mean=1.0),
    "stem.weight": Hash(bank="a", start=3, stride=5, seed=1, chunk=16, scale=1.2),
    "blocks.0.weight": Mix(bank="a", start=0, stride=600, coefficient=0, count=2, step=0.5),
    "blocks.1.weight": Mix(bank="a", start=300, stride=600, coefficient=2, count=2, step=0.5),
    "blocks.2.weight": Interpolate(
        bank="a", start=9, stride=250, coefficient=4, count=4, rows=5, columns=48
    ),
    "up.weight": LowRank(bank="b", rank=1),
    "fc.weight": Tie(bank="c"),
}
ALIASES: dict[str, str] = {}
"""


LM = """
class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(23, 16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
        self.lstm = nn.LSTM(16, 8, num_layers=2, bidirectional=True, batch_first=True)
        self.same = nn.Embedding(5, 16)
        self.head = nn.Linear(16, 23)
        self.other = nn.Linear(16, 5)
        self.head.weight = self.embed.weight
        self.other.weight = self.same.weight

    def reset_parameters(self) -> None:
        for bias in (self.head.bias, self.other.bias):
            nn.init.zeros_(bias)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = self.layer(x)
        x = x + self.lstm(x)[0]
        return torch.cat([self.head(x), self.other(x + self.same(tokens % 5))], -1)
"""

LM_TABLES = """
BANKS: dict[str, dict[str, Any]] = {"a": {"size": 999, "std": 0.2}}
SITES: dict[str, Generator] = {
    key: Hash(bank="a", start=7 * seed, stride=1, seed=seed, chunk=16)
    for seed, key in enumerate(
        [
            "embed.weight",
            "attention.in_proj_weight",
            "attention.out_proj.weight",
            "layer.self_attn.in_proj_weight",
            "layer.self_attn.out_proj.weight",
            "layer.linear1.weight",
            "layer.linear2.weight",
            "lstm.weight_ih_l0",
            "lstm.weight_hh_l0_reverse",
            "lstm.weight_ih_l1",
        ]
    )
}
ALIASES: dict[str, str] = {"head.weight": "embed.weight", "other.weight": "same.weight"}
"""


def cnn_runtime() -> Runtime:
    owners = (
        layer("Conv2d", "weight"),
        layer("ConvTranspose2d", "weight"),
        layer("Linear", "weight"),
    )
    return Runtime(KINDS, owners, Root("GeneratedNet", "Net", "Net()", ("gain",)))


def lm_runtime() -> Runtime:
    projection = "NonDynamicallyQuantizableLinear"
    owners = (
        layer("Embedding", "weight"),
        layer("MultiheadAttention", "in_proj_weight"),
        layer(projection, "weight", path=f"nn.modules.linear.{projection}"),
        layer("Linear", "weight"),
        layer("LSTM", "weight_ih_l0", "weight_hh_l0_reverse", "weight_ih_l1", recurrent=True),
    )
    return Runtime(("hash",), owners, Root("GeneratedModel", "Model", "Model()"), links=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("emitted")


@pytest.fixture(scope="module")
def cnn(folder: Path) -> ModuleType:
    return load(render(cnn_runtime(), CNN, CNN_TABLES), folder)


@pytest.fixture(scope="module")
def lm(folder: Path) -> ModuleType:
    return load(render(lm_runtime(), LM, LM_TABLES), folder)


def built(module: ModuleType, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A fresh model and an input."""
    torch.manual_seed(seed)
    model = module.build()
    if hasattr(module, "Net"):
        return model, torch.randn(4, 3, 8, 8)
    return model, torch.randint(23, (4, 6))


@pytest.fixture
def module(name: str, request: pytest.FixtureRequest) -> ModuleType:
    value = request.getfixturevalue(name)
    assert isinstance(value, ModuleType)
    return value


def subset(*kinds: str) -> Runtime:
    owners = (layer("Linear", "weight"),)
    return Runtime(kinds, owners, Root("GeneratedNet", "Net", "Net()"))


TWO_LINEARS = """
class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x)
"""
