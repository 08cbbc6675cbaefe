"""Models of libraries, by name or configuration, with the inputs that the libraries tell of."""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from planner.configurations import configured_example
from planner.errors import ModelSourceError
from planner.examples import Example, make_example
from planner.ir import TensorSpec

# Images are as large as the published weights' own, within these bounds: what a network demands
# lies within them, and beyond them an image costs more than it shows.
_SIZE, _LARGEST = 224, 320
_FRAMES = 16


@dataclass(frozen=True, slots=True)
class Source:
    """Something that builds a model.

    ``folder`` is where its own imports are looked up; ``offers`` may have ``example_inputs``;
    ``example`` gives the inputs of a model that was built.
    """

    build: Callable[[], object]
    folder: str | None = None
    offers: object = None
    example: Callable[[nn.Module], Example | None] | None = None


def suggest(name: str, names: list[str]) -> str:
    """The end of a message about ``name``: which of ``names`` may be meant."""
    close = difflib.get_close_matches(name, names, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _library(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ModelSourceError(
            f"{name} is not installed: pip install npas-planner[{extra}]"
        ) from error


def _torchvision(name: str, arguments: dict[str, Any]) -> Source:
    models = _library("torchvision", "torchvision").models
    if name not in models.list_models():
        raise ModelSourceError(
            f"torchvision has no model {name!r}{suggest(name, models.list_models())}"
        )
    # Neither weights nor a backbone's are downloaded.
    parameters = inspect.signature(models.get_model_builder(name)).parameters
    backbone = {"weights_backbone": None} if "weights_backbone" in parameters else {}
    arguments = {"weights": None, **backbone, **arguments}
    published = list(models.get_model_weights(name))
    return Source(
        lambda: models.get_model(name, **arguments),
        example=lambda model: _example_of_weights(published, getattr(model, "image_size", None)),
    )


def _example_of_weights(published: list[Any], image_size: object) -> Example:
    """Inputs of a torchvision model: its published weights tell their kind and size."""
    kind = _preprocessing(published[0])[0] if published else ""
    least = published[0].meta.get("min_size", (1, 1)) if published else (1, 1)
    if kind == "OpticalFlow":
        return make_example([_images(2, 3, *least)] * 2)
    crop = min((_side(_preprocessing(one)[1]) for one in published), default=_SIZE)
    size = image_size if isinstance(image_size, int) else max(min(crop, _LARGEST), *least)
    if kind == "VideoClassification":
        return make_example(_images(2, 3, _FRAMES, size, size))
    if kind == "ObjectDetection":
        return make_example([[_images(3, size, size)] * 2])
    return make_example(_images(2, 3, size, size))


def _preprocessing(weights: Any) -> tuple[str, Any]:
    """The name of the preprocessing of published weights, and the size that it crops to."""
    transforms = weights.transforms  # a class, or a partial of one
    keywords = getattr(transforms, "keywords", {})
    return getattr(transforms, "func", transforms).__name__, keywords.get("crop_size")


def _side(crop: Any) -> int:
    """The shorter side of a crop; preprocessing that crops nothing takes any size."""
    if crop is None:
        return _SIZE
    return crop if isinstance(crop, int) else int(min(crop))


def _images(*shape: int) -> TensorSpec:
    return TensorSpec(shape, "float32")


def _timm(name: str, arguments: dict[str, Any]) -> Source:
    timm = _library("timm", "timm")
    if not timm.is_model(name.partition(".")[0]):
        raise ModelSourceError(f"timm has no model {name!r}{suggest(name, timm.list_models())}")

    def example(model: nn.Module) -> Example:
        published: Any = getattr(model, "pretrained_cfg", None) or {}
        channels, height, width = published.get("input_size") or (3, _SIZE, _SIZE)
        size = arguments.get("img_size", (height, width))
        height, width = (size, size) if isinstance(size, int) else size
        return make_example(_images(2, arguments.get("in_chans", channels), height, width))

    return Source(
        lambda: timm.create_model(name, **{"pretrained": False, **arguments}), example=example
    )


def _transformers(path: str, arguments: dict[str, Any]) -> Source:
    transformers = _library("transformers", "transformers")
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelSourceError(f"configuration {path} cannot be read: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ModelSourceError(f"configuration {path} has no model_type")
    config = {**config, **arguments}
    if config["model_type"] not in transformers.CONFIG_MAPPING:
        known = list(transformers.CONFIG_MAPPING)
        raise ModelSourceError(
            f"configuration {path} has the model_type {config['model_type']!r}, which transformers "
            f"does not know{suggest(config['model_type'], known)}"
        )
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else "AutoModel"
    architecture = getattr(transformers, str(name), None)
    if architecture is None:
        raise ModelSourceError(
            f"configuration {path} names the architecture {name!r}, which transformers does not "
            f"have{suggest(str(name), dir(transformers))}"
        )

    def build() -> object:
        made = transformers.AutoConfig.for_model(**config)
        if "use_cache" not in arguments:
            _without_cache(made)
        return architecture.from_config(made) if name == "AutoModel" else architecture(made)

    return Source(build, example=configured_example)


def _without_cache(config: Any) -> None:
    """Let no part return a cache of keys and values: an output that training has no use for."""
    for part in (config, *(getattr(config, name, None) for name in config.sub_configs)):
        if hasattr(part, "use_cache"):
            part.use_cache = False


LIBRARIES: dict[str, Callable[[str, dict[str, Any]], Source]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "hf": _transformers,
}
