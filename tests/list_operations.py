"""Lists what torch offers to forwards: run to bring planner/operations.txt up to date.

torch's functions and methods are those that torch itself lists as overridable (they take tensors
and return values), plus factories and a few that it does not list though they are public.
"""

from pathlib import Path

import torch
import torch.overrides
from torch import nn

FILE = Path(__file__).parents[1] / "planner" / "operations.txt"

FACTORIES = (
    "arange as_tensor bartlett_window blackman_window empty empty_like eye fft.fftfreq "
    "fft.rfftfreq finfo full full_like hamming_window hann_window iinfo kaiser_window linspace "
    "logspace ones ones_like rand rand_like randint randn randn_like randperm tensor "
    "tril_indices triu_indices zeros zeros_like"
).split()
NEWER = ("grouped_mm",)
PACKING = "PackedSequence pack_padded_sequence pad_packed_sequence".split()
NAMESPACES = ("torch", "torch.nn.functional", "torch.linalg", "torch.fft", "torch.special")
METHODS = (
    "bool byte char clone contiguous cpu detach dim double expand float half int item long "
    "new_empty new_full new_ones new_tensor new_zeros numel permute requires_grad_ reshape short "
    "size to tolist type_as unbind unflatten view __getitem__ __setitem__"
).split()
# Methods that reach beyond the values of a forward.
FORBIDDEN = (
    "apply_ backward map2_ map_ module_load numpy register_hook register_post_accumulate_grad_hook "
    "share_memory_ storage untyped_storage"
).split()
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


def functions():
    """Public names of torch's functions."""
    for namespace, listed in torch.overrides.get_overridable_functions().items():
        qualified = getattr(namespace, "__name__", "")
        if qualified not in (*NAMESPACES, "torch.functional"):
            continue
        # What torch.functional defines is public as torch.NAME.
        public = "torch" if qualified == "torch.functional" else qualified
        known = {id(function) for function in listed}
        plain = {getattr(function, "__name__", "") for function in listed}
        for name in dir(namespace):
            # What torch.linalg calls norm is called linalg_norm by itself.
            if not name.startswith("_"):
                if name in plain or id(getattr(namespace, name)) in known:
                    yield f"{public}.{name}"
    yield from (f"torch.nn.functional.{name}" for name in NEWER)
    yield from (f"torch.nn.utils.rnn.{name}" for name in PACKING)
    yield from (f"torch.{name}" for name in FACTORIES)


def methods():
    """Names of tensors' methods, with a dot before them."""
    listed = torch.overrides.get_overridable_functions()[torch.Tensor]
    for name in (*METHODS, *(getattr(method, "__name__", "") for method in listed)):
        if name and name not in FORBIDDEN and (not name.startswith("_") or name.endswith("item__")):
            yield f".{name}"


def layers():
    """Names of torch's layers."""
    for name, value in vars(nn).items():
        if isinstance(value, type) and issubclass(value, nn.Module) and value not in CONTAINERS:
            yield f"nn.{name}"


def listed():
    """All lines of the file, sorted."""
    return sorted({*functions(), *methods(), *layers()})


if __name__ == "__main__":
    FILE.write_text("\n".join(listed()) + "\n")
