"""Constructor calls of ``torch.nn`` modules, recovered from their attributes.

A module of torch keeps its constructor's arguments as attributes, nearly always under the
parameter's own name. The recovered call is proved: a module built from it must have the same
representation, the same state and the same plain attributes as the original.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from planner.ir import Leaf, Slot, Value
from planner.tracing.values import to_value

_IGNORED = ("device", "dtype", "_weight", "_freeze")


def _recurrent(module: Any) -> dict[str, Any]:
    names = "input_size hidden_size num_layers bias batch_first dropout bidirectional proj_size"
    arguments = {name: getattr(module, name) for name in names.split()}
    if not isinstance(module, nn.LSTM):
        del arguments["proj_size"]
    if type(module) is nn.RNN:
        arguments["nonlinearity"] = module.nonlinearity
    return arguments


def _attention(module: Any) -> dict[str, Any]:
    return {
        "embed_dim": module.embed_dim,
        "num_heads": module.num_heads,
        "dropout": module.dropout,
        "bias": module.in_proj_bias is not None,
        "add_bias_kv": module.bias_k is not None,
        "add_zero_attn": module.add_zero_attn,
        "kdim": module.kdim if module.kdim != module.embed_dim else None,
        "vdim": module.vdim if module.vdim != module.embed_dim else None,
        "batch_first": module.batch_first,
    }


def _transformer_layer(module: Any) -> dict[str, Any]:
    activation = module.activation
    return {
        "d_model": module.self_attn.embed_dim,
        "nhead": module.self_attn.num_heads,
        "dim_feedforward": module.linear1.out_features,
        "dropout": module.dropout.p,
        "activation": {nn.functional.relu: "relu", nn.functional.gelu: "gelu"}.get(
            activation, activation
        ),
        "layer_norm_eps": module.norm1.eps,
        "batch_first": module.self_attn.batch_first,
        "norm_first": module.norm_first,
        "bias": module.linear1.bias is not None,
    }


def _transformer(module: Any) -> dict[str, Any]:
    encoder, decoder = module.encoder.layers, module.decoder.layers
    if not (len(encoder) and len(decoder)):
        raise ValueError("a Transformer without layers does not show how they would be")
    arguments = _transformer_layer(encoder[0])
    numbers = {"num_encoder_layers": len(encoder), "num_decoder_layers": len(decoder)}
    return {"d_model": module.d_model, "nhead": module.nhead, **numbers, **arguments}


def _encoder(module: Any) -> dict[str, Any]:
    if not len(module.layers):
        raise ValueError("an encoder without layers does not show how they would be")
    arguments = {"encoder_layer": module.layers[0], "num_layers": module.num_layers}
    options = ("norm", "enable_nested_tensor", "mask_check")
    return arguments | {name: getattr(module, name) for name in options}


# Constructors whose arguments are not attributes under the same names.
_SPECIAL: tuple[tuple[type[nn.Module], Callable[[Any], dict[str, Any]]], ...] = (
    (nn.RNNBase, _recurrent),
    (nn.MultiheadAttention, _attention),
    (nn.TransformerEncoderLayer, _transformer_layer),
    (nn.TransformerDecoderLayer, _transformer_layer),
    (nn.Transformer, _transformer),
    (nn.TransformerEncoder, _encoder),
)


def is_torch_leaf(module: nn.Module) -> bool:
    """Whether ``module`` is one of ``torch.nn``'s own, as torch made it, and no container."""
    if isinstance(
        module, (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
    ):
        return False
    own = type(module).__module__.startswith("torch.nn.modules.")
    return own and "forward" not in module.__dict__


def recover(module: nn.Module) -> Leaf:
    """The constructor call that builds ``module`` anew.

    Raises:
        ValueError: an argument cannot be read off, or the rebuilt module differs.
    """
    cls = type(module)
    if getattr(nn, cls.__name__, None) is not cls:
        raise ValueError(f"{cls.__name__} is not public in torch.nn")
    arguments, required = _arguments(module)
    pairs = [name for name, value in arguments.items() if _uniform(value)]
    collapsed = {name: value[0] if name in pairs else value for name, value in arguments.items()}
    if pairs and _rebuilds(module, collapsed):
        arguments = collapsed
    elif not _rebuilds(module, arguments):
        raise ValueError(f"torch.nn.{cls.__name__} cannot be rebuilt from its attributes")
    args = tuple(_value(arguments.pop(name)) for name in required)
    return Leaf(cls.__name__, args, tuple((name, _value(one)) for name, one in arguments.items()))


def _value(argument: Any) -> Value:
    return recover(argument) if isinstance(argument, nn.Module) else to_value(argument)


def without_defaults(leaf: Leaf) -> Leaf:
    """``leaf`` without the keyword arguments that its constructor has anyway.

    :func:`recover` keeps numbers even where they are defaults, so that folding sees a stride of 1
    and a stride of 2 as one structure with another number.
    """
    defaults = _defaults(getattr(nn, leaf.type))

    def shorter(value: Value) -> Value:
        return without_defaults(value) if isinstance(value, Leaf) else value

    return replace(
        leaf,
        args=tuple(map(shorter, leaf.args)),
        kwargs=tuple(
            (name, shorter(value))
            for name, value in leaf.kwargs
            if name not in defaults or isinstance(value, Slot) or to_value(defaults[name]) != value
        ),
    )


def _uniform(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) > 0
        and all(isinstance(item, int) for item in value)
        and len(set(value)) == 1
    )


def _arguments(module: nn.Module) -> tuple[dict[str, Any], list[str]]:
    """(arguments that differ from their defaults, names of those without a default)."""
    for special, read in _SPECIAL:
        if isinstance(module, special):
            values = read(module)
            defaults = _defaults(type(module))
            required = [name for name in values if name not in defaults]
            return {
                name: value
                for name, value in values.items()
                if name in required or value != defaults[name] or _is_number(value)
            }, required
    signature = inspect.signature(type(module).__init__)
    arguments: dict[str, Any] = {}
    required = []
    for parameter in list(signature.parameters.values())[1:]:
        name = parameter.name
        if name in _IGNORED or parameter.kind in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        ):
            continue
        if not hasattr(module, name):
            if parameter.default is parameter.empty:
                raise ValueError(
                    f"torch.nn.{type(module).__name__} does not keep its argument {name!r}"
                )
            continue
        value = getattr(module, name)
        if isinstance(value, torch.Tensor) or (value is None and name == "bias"):
            value = value is not None
        if parameter.default is parameter.empty:
            required.append(name)
        elif type(value) is type(parameter.default) and value == parameter.default:
            if not _is_number(value):
                continue
        elif _uniform(value) and value[0] == parameter.default:
            value = parameter.default
        arguments[name] = value
    return arguments, required


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


# nn.RNNBase's subclasses take *args and **kwargs, so no signature tells.
_RECURRENT_DEFAULTS = {
    "num_layers": 1,
    "bias": True,
    "batch_first": False,
    "dropout": 0.0,
    "bidirectional": False,
    "proj_size": 0,
    "nonlinearity": "tanh",
}


def _defaults(cls: type) -> dict[str, Any]:
    if issubclass(cls, nn.RNNBase):
        return _RECURRENT_DEFAULTS
    return {
        name: parameter.default
        for name, parameter in inspect.signature(cls.__init__).parameters.items()
        if parameter.default is not parameter.empty
    }


def _rebuilds(module: nn.Module, arguments: dict[str, Any]) -> bool:
    try:
        with torch.device("meta"):
            other = type(module)(**arguments)
    except Exception:  # noqa: BLE001  the proof is that it builds: any failure is a no
        return False
    other.train(module.training)
    return repr(other) == repr(module) and _state(other) == _state(module)


def _state(module: nn.Module) -> list[object]:
    """All that must agree: names, shapes and kinds of tensors, and plain attributes."""
    tensors: list[object] = [
        (name, tuple(tensor.shape), tensor.dtype, kind)
        for kind, named in (
            ("parameter", module.named_parameters(remove_duplicate=False)),
            ("buffer", module.named_buffers(remove_duplicate=False)),
        )
        for name, tensor in named
    ]
    plain: list[object] = []
    for path, part in module.named_modules():
        for name, value in sorted(part.__dict__.items()):
            # How a padding is spelt (its reversed, repeated form) follows from the arguments.
            if name == "training" or name.startswith("_"):
                continue
            kept = (bool, int, float, str, type(None), tuple)
            if isinstance(value, kept) or inspect.isroutine(value):
                plain.append((path, name, value))
    return [*tensors, *plain]
