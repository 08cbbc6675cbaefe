"""Inputs of a model that carries a Hugging Face configuration, from what the configuration says."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from planner.examples import Example, make_example
from planner.ir import TensorSpec

_BATCH = 2
# Long enough for time masks and windows, and unlike the widths of layers.
_LENGTH = 24
_IMAGE = 224
_SAMPLES = 16_000

_POSITIONS = ("max_position_embeddings", "n_positions", "max_target_positions", "n_ctx")
_CHANNELS = ("num_channels", "in_channels", "in_chans", "num_input_channels")
_FRAMES = ("num_frames", "frames_per_clip")


def configured_example(model: nn.Module) -> Example | None:
    """Keyword inputs of ``model``, or None where its forward demands something unknown.

    They are its main input and whatever its forward has no default for. The decoder of an
    encoder-decoder reads as many ids as an encoder of ids does, since some heads look for the end
    of the one in the other. A model that compares or joins texts and images, or texts and sounds,
    gets both.
    """
    names = _names(model)
    if not names <= _MAKERS.keys():
        return None
    values = {name: make(model) for name, make in _MAKERS.items() if name in names}
    if any(value is None for value in values.values()):
        return None
    return make_example(values)


def _names(model: Any) -> set[str]:
    parameters = inspect.signature(model.forward).parameters
    names = {model.main_input_name} | {
        one.name
        for one in parameters.values()
        if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    }
    if {"input_ids", "pixel_values"} <= parameters.keys() and not _has_places_for_images(model):
        names |= {"input_ids", "attention_mask", "pixel_values"}
    if hasattr(model, "get_text_features") and hasattr(model, "get_audio_features"):
        names |= {"input_ids", "attention_mask", "input_features"}
    if model.config.is_encoder_decoder:
        names |= {"decoder_input_ids"}
    # Has a default for the sake of embeddings, but is demanded by models that read layouts.
    names |= {"bbox"}
    return names & parameters.keys()


def _has_places_for_images(model: nn.Module) -> bool:
    """Whether features of images replace special ids, so that ordinary ids are a whole input."""
    return hasattr(model, "get_image_features") and not hasattr(model, "get_text_features")


def _settings(config: Any, *parts: str) -> Iterator[Any]:
    """``config`` and those of its parts that are configurations, as deep as they go."""
    yield config
    for part in parts:
        # A part that the model does not know may be a mere dict.
        if hasattr(inner := getattr(config, part, None), "to_dict"):
            yield from _settings(inner, *parts)


def _setting(configs: Iterator[Any], *names: str) -> Any:
    """The first of ``names`` that one of ``configs`` has, or None."""
    for config in configs:
        for name in names:
            if (value := getattr(config, name, None)) is not None:
                return value
    return None


def _text(model: Any) -> Iterator[Any]:
    return _settings(model.config, "text_config", "text_encoder", "decoder", "encoder")


def _vision(model: Any) -> Iterator[Any]:
    return _settings(model.config, "vision_config", "encoder", "backbone_config")


def _audio(model: Any) -> Iterator[Any]:
    return _settings(model.config, "audio_config", "audio_encoder", "encoder")


def _ids(model: Any) -> torch.Tensor:
    """Ordinary tokens, then the one that ends a text, by which some heads find what they read."""
    positions = _setting(_text(model), *_POSITIONS)
    # Some models number positions from behind a padding token's.
    length = min(_LENGTH, max(positions - 4, 1)) if isinstance(positions, int) else _LENGTH
    vocabulary = _setting(_text(model), "vocab_size") or 2
    special = {
        token
        for config in _text(model)
        for name, value in vars(config).items()
        if name.endswith(("_token_id", "_token_index"))
        for token in (value if isinstance(value, list) else [value])
    }
    ordinary = [token for token in range(min(vocabulary, 1000)) if token not in special] or [0]
    ids = torch.tensor([ordinary[7 * k % len(ordinary)] for k in range(_BATCH * length)])
    ids = ids.view(_BATCH, length)
    end = _setting(_text(model), "eos_token_id")
    end = end[0] if isinstance(end, list) and end else end
    if isinstance(end, int) and 0 <= end < vocabulary:
        ids[:, -1] = end
    return ids


def _mask(model: Any) -> torch.Tensor:
    return torch.ones_like(_ids(model))


def _boxes(model: Any) -> torch.Tensor:
    """A box for each token, (x0, y0, x1, y1)."""
    return torch.tensor([10, 20, 30, 40]).expand(*_ids(model).shape, 4).clone()


def _pixels(model: Any) -> TensorSpec:
    """Images (B, C, H, W), or videos (B, T, C, H, W) where the configuration counts frames."""
    frames = _setting(_vision(model), *_FRAMES)
    return _noise(*_image(model)) if frames is None else _noise(frames, *_image(model))


def _image(model: Any) -> tuple[int, int, int]:
    """Channels, height and width."""
    size = _setting(_vision(model), "image_size", "crop_size", "input_size") or _IMAGE
    if isinstance(size, dict):
        size = tuple(size.values())
    height, width = (size, size) if isinstance(size, int) else size
    return _setting(_vision(model), *_CHANNELS) or 3, height, width


def _spectrum(model: Any) -> TensorSpec:
    """Spectrograms: (B, bins, frames) where the number of frames is fixed, else (B, frames, bins).

    A fixed number is twice the encoder's positions, whose second convolution halves it; where the
    spectrogram is folded into a square image, it is (B, 1, frames, bins).
    """
    bins = _setting(_audio(model), "num_mel_bins")
    positions = _setting(_audio(model), "max_source_positions")
    side = _setting(_audio(model), "spec_size")
    if isinstance(side, int) and isinstance(bins, int):
        return _noise(1, side * side // bins, bins)
    features = _setting(_audio(model), "feature_projection_input_dim", "input_feat_per_channel")
    if features is None and isinstance(bins, int) and isinstance(positions, int):
        return _noise(bins, 2 * positions)
    return _noise(2 * _LENGTH, features or bins or 80)


def _wave(model: Any) -> TensorSpec:
    """Samples (B, T) that give some frames, (B, channels, T) for codecs; else a spectrogram."""
    bins, length = (_setting(_audio(model), name) for name in ("num_mel_bins", "max_length"))
    if isinstance(bins, int) and isinstance(length, int):
        return _noise(length, bins)
    kernels, strides = (_setting(_audio(model), name) for name in ("conv_kernel", "conv_stride"))
    if isinstance(kernels, (list, tuple)) and isinstance(strides, (list, tuple)):
        samples = _LENGTH
        for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
            samples = (samples - 1) * stride + kernel
        return _noise(samples)
    channels = _setting(_audio(model), "audio_channels")
    return _noise(_SAMPLES) if channels is None else _noise(channels, _SAMPLES)


def _any_modality(model: Any) -> torch.Tensor | TensorSpec | None:
    """What the preprocessor of the model reads: ids, images, or else rows as wide as the model."""
    reader = next(
        (one for one in (_reader(module) for module in model.modules()) if one is not None), None
    )
    if reader is None:
        width = _setting(_settings(model.config), "d_model", "hidden_size")
        return _noise(_LENGTH, width) if isinstance(width, int) else None
    if any(isinstance(child, nn.Embedding) for child in reader.children()):
        return _ids(model)
    return _noise(*_image(model))


def _reader(module: nn.Module) -> nn.Module | None:
    found = getattr(module, "input_preprocessor", None)
    return found if isinstance(found, nn.Module) else None


def _noise(*shape: int) -> TensorSpec:
    return TensorSpec((_BATCH, *shape), "float32")


_MAKERS: dict[str, Callable[[Any], torch.Tensor | TensorSpec | None]] = {
    "input_ids": _ids,
    "attention_mask": _mask,
    "bbox": _boxes,
    "pixel_values": _pixels,
    "pixel_values_videos": _pixels,
    "input_features": _spectrum,
    "input_values": _wave,
    "inputs": _any_modality,
    "decoder_input_ids": _ids,
}
