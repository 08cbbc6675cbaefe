"""Tensors from a file that may come from anyone: safetensors, or what torch loads as weights."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from planner.errors import EvidenceError

if TYPE_CHECKING:
    from torch import Tensor

_ZIP = b"PK\x03\x04"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a flat state dict; see :func:`read_data`.

    Raises:
        EvidenceError: the file cannot be read, or holds more than a flat dictionary of tensors.
    """
    import torch

    found = read_data(path)
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise EvidenceError(f"{path} holds no state dict, but a {type(found).__name__}")
    odd = next((key for key, value in found.items() if not isinstance(value, torch.Tensor)), None)
    if odd is not None:
        raise EvidenceError(f"{path} holds no plain state dict: {odd!r} is not a tensor")
    return dict(found)


def read_data(path: Path) -> object:
    """What a file of tensors holds. What kind of file it is, its content says, not its name.

    No code from the file runs: a safetensors file has none, and torch reads others with
    ``weights_only``, which refuses whatever is not data.

    Raises:
        EvidenceError: the file is missing, cut off, or holds more than tensors and plain data.
    """
    import torch

    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise EvidenceError(f"{path} cannot be read: {error.strerror or error}") from None
    if not start.startswith(_ZIP) and start[8:] == b"{":
        return _safetensors(path)
    try:
        # An open file: of a path, torch lets the name say what it is.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise EvidenceError(
            f"{path} holds more than tensors, or is no file of tensors, and is not read: save "
            "model.state_dict(), best with safetensors.torch.save_file"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError) as error:
        raise EvidenceError(f"{path} is cut off or damaged: {_line(error)}") from None
    except (AttributeError, AssertionError, OSError, OverflowError, MemoryError) as error:
        raise EvidenceError(f"{path} is damaged: {_line(error)}") from None


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise EvidenceError(
            f"{path} is a safetensors file: install safetensors, or save with torch.save"
        ) from None
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise EvidenceError(f"{path} is cut off or damaged: {_line(error)}") from None


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
