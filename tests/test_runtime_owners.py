"""Every kind of module that can own a generated tensor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from runtime_models import (
    TWO_LINEARS,
)
from runtime_rendering import Owner, Root, Runtime, layer, load, render, ruff

pytest_plugins = ["runtime_models"]
torch.set_num_threads(2)


def test_every_owner_type_generates(folder: Path) -> None:
    """Layers that the other models lack, each with all its parameters generated."""
    layers = {
        "conv1": ("Conv1d", "(4, 6, 3)", torch.randn(2, 4, 9)),
        "conv3": ("Conv3d", "(2, 4, 2)", torch.randn(2, 2, 3, 3, 3)),
        "back1": ("ConvTranspose1d", "(4, 6, 3)", torch.randn(2, 4, 9)),
        "bag": ("EmbeddingBag", "(7, 5)", torch.randint(7, (2, 3))),
        "gru": ("GRU", "(4, 5, num_layers=2)", torch.randn(3, 2, 4)),
        "rnn": ("RNN", "(4, 5)", torch.randn(3, 2, 4)),
        "lstm": ("LSTM", "(4, 5, proj_size=2)", torch.randn(3, 2, 4)),
        "cell": ("LSTMCell", "(4, 5)", torch.randn(3, 4)),
        "norm": ("LayerNorm", "(4)", torch.randn(3, 4)),
        "deal": ("Bilinear", "(4, 4, 3)", torch.randn(3, 4)),
    }
    plain = {
        name: getattr(nn, kind)(*_arguments(text)[0], **_arguments(text)[1])
        for name, (kind, text, _) in layers.items()
    }
    lines = [f"        self.{name} = nn.{kind}{text}" for name, (kind, text, _) in layers.items()]
    architecture = (
        "class Net(nn.Module):\n    def __init__(self) -> None:\n        super().__init__()\n"
        + "\n".join(lines)
    )
    keys = [f"{name}.{key}" for name, value in plain.items() for key, _ in value.named_parameters()]
    sites = ",\n".join(
        f'    "{key}": Hash(bank="a", stride=1, seed={seed}, start={seed}, chunk=8)'
        for seed, key in enumerate(keys)
    )
    tables = (
        'BANKS: dict[str, dict[str, Any]] = {"a": {"size": 200, "std": 0.2}}\n'
        f"SITES: dict[str, Generator] = {{\n{sites}\n}}\nALIASES: dict[str, str] = {{}}"
    )
    owners = tuple(
        layer(
            kind,
            *dict(plain[name].named_parameters()),
            recurrent=isinstance(plain[name], nn.RNNBase),
        )
        for name, (kind, _, _) in layers.items()
    )
    runtime = Runtime(("hash",), owners, Root("GeneratedNet", "Net", "Net()"))
    model = load(render(runtime, architecture, tables), folder).build()
    assert [key for key, _ in model.named_parameters()] == ["banks.a.weight"]
    dense = model.dense_state_dict()
    for name, (_, _, x) in layers.items():
        mine, other = model.get_submodule(name), plain[name]
        other.load_state_dict(
            {
                key.split(".", 1)[1]: value
                for key, value in dense.items()
                if key.split(".")[0] == name
            }
        )
        inputs = (x, x) if name == "deal" else (x,)
        torch.testing.assert_close(mine(*inputs), other(*inputs))
        if isinstance(other, nn.RNNBase):
            mine.flatten_parameters()
            assert "_flat_weights" not in mine.__dict__


def _arguments(text: str) -> tuple[tuple[int, ...], dict[str, int]]:
    parts = [part.strip() for part in text.strip("()").split(",")]
    words = dict(part.split("=") for part in parts if "=" in part)
    return tuple(int(p) for p in parts if "=" not in p), {k: int(v) for k, v in words.items()}


def test_architecture_classes_own_generated_parameters_too(folder: Path) -> None:
    architecture = """
class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pos = nn.Parameter(torch.empty(3, 4))
        self.kept = nn.Parameter(torch.empty(4))

    def reset_parameters(self) -> None:
        nn.init.ones_(self.kept)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.pos) * self.kept


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(Part(), nn.ReLU(), nn.Linear(4, 2))
"""
    tables = (
        'BANKS: dict[str, dict[str, Any]] = {"a": {"size": 7, "std": 0.5}}\n'
        'SITES: dict[str, Generator] = {"0.pos": Hash(bank="a", stride=1, seed=2, chunk=2)}\n'
        "ALIASES: dict[str, str] = {}"
    )
    owners = (Owner("GeneratedPart", "Part", ("pos",)),)
    root = Root("GeneratedNet", "Net", "Net()", sequential=True)
    source = render(Runtime(("hash",), owners, root, banks="shared"), architecture, tables)
    ruff(["check", "--select", "E,F,I,UP,W"], source)
    model = load(source, folder).build()
    plain = type(model).__bases__[0]()
    plain.load_state_dict(model.dense_state_dict())
    x = torch.randn(5, 3, 4)
    torch.testing.assert_close(model(x), plain(x))
    assert (model[0].kept == 1).all() and len(model) == 3 and len(list(model)) == 3
    assert "shared.a.weight" in model.state_dict() and model[-1] is model[2]
    torch.testing.assert_close(
        torch.compile(model, backend="aot_eager", fullgraph=True)(x), plain(x)
    )


def test_one_layer_under_two_names_is_generated_once(folder: Path) -> None:
    architecture = TWO_LINEARS.replace(
        "nn.Linear(6, 4)\n", "nn.Linear(6, 6)\n        self.b = self.a\n"
    )
    architecture = architecture.replace("return self.a(x)", "return self.b(self.a(x))")
    tables = (
        'BANKS: dict[str, dict[str, Any]] = {"a": {"size": 20, "std": 0.5}}\n'
        'SITES: dict[str, Generator] = {"a.weight": Hash(bank="a", stride=1, seed=2, chunk=4)}\n'
        'ALIASES: dict[str, str] = {"b.weight": "a.weight", "b.bias": "a.bias"}'
    )
    runtime = Runtime(
        ("hash",), (layer("Linear", "weight"),), Root("GeneratedNet", "Net", "Net()"), links=True
    )
    model = load(render(runtime, architecture, tables), folder).build()
    with torch.no_grad():
        model.a.bias.zero_()
    assert model.a is model.b and isinstance(model.a.bias, nn.Parameter)
    plain = type(model).__bases__[0]()
    plain.load_state_dict(model.dense_state_dict())
    x = torch.randn(2, 6)
    torch.testing.assert_close(model(x), plain(x))


def test_a_linked_parameter_starts_as_its_owner_draws_it(folder: Path) -> None:
    lines = (
        "nn.Linear(40, 50)\n        self.e = nn.Embedding(50, 40)\n"
        "        self.a.weight = self.e.weight\n"
    )
    other = (
        "self.e = nn.Embedding(50, 40)\n        self.a = nn.Linear(40, 50)\n"
        "        self.a.weight = self.e.weight\n"
    )
    tables = (
        "BANKS: dict[str, dict[str, Any]] = {}\nSITES: dict[str, Generator] = {}\n"
        'ALIASES: dict[str, str] = {"a.weight": "e.weight"}'
    )
    for architecture in (
        TWO_LINEARS.replace("nn.Linear(6, 4)\n", lines),
        TWO_LINEARS.replace("self.a = nn.Linear(6, 4)\n", other),
    ):
        runtime = Runtime(
            ("hash",),
            (layer("Linear", "weight"),),
            Root("GeneratedNet", "Net", "Net()"),
            links=True,
        )
        torch.manual_seed(0)
        model = load(render(runtime, architecture, tables), folder).build()
        assert model.a.weight is model.e.weight and set(model.state_dict()) == {
            "a.bias",
            "e.weight",
        }
        assert model.e.weight.std().item() == pytest.approx(1.0, rel=0.1)
        assert 0 < model.a.bias.abs().max() <= 40**-0.5
