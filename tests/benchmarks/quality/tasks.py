"""Image classification: scikit-learn's digits, CIFAR-10 and CIFAR-100."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.digits import images

PIXELS = 3 * 32 * 32
MEAN = (0.4914, 0.4822, 0.4465)
DEVIATION = (0.2470, 0.2435, 0.2616)


@dataclass(frozen=True)
class Task:
    """Images are N x 3 x 32 x 32, labels N; ``flips`` says whether a mirrored image is one too."""

    name: str
    classes: int
    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    flips: bool


def digits() -> Task:
    """1,437 images to train with, 360 held out."""
    return Task("digits", 10, *images(), flips=False)


def cifar(folder: Path, classes: int) -> Task:
    """CIFAR in its binary version, unpacked in ``folder``.

    A record is the label (in CIFAR-100 a coarse label before the fine one, which counts) in a byte
    each and 3,072 bytes of red, green and blue planes. The binary files hold no pickles.
    """
    if classes == 10:
        train, test = [f"data_batch_{number}.bin" for number in range(1, 6)], ["test_batch.bin"]
    else:
        train, test = ["train.bin"], ["test.bin"]
    x, y = _read(folder, train, classes)
    x_test, y_test = _read(folder, test, classes)
    return Task(f"cifar{classes}", classes, x, y, x_test, y_test, flips=True)


def _read(folder: Path, names: list[str], classes: int) -> tuple[Tensor, Tensor]:
    labels = 1 if classes == 10 else 2
    parts = []
    for name in names:
        path = folder / name
        if not path.is_file():
            raise SystemExit(f"{path} is not there: unpack CIFAR's binary version in {folder}")
        raw = np.fromfile(path, dtype=np.uint8)
        if not len(raw) or len(raw) % (labels + PIXELS):
            raise SystemExit(
                f"{path} has {len(raw)} bytes, no whole number of records: it is cut off"
            )
        parts.append(raw.reshape(-1, labels + PIXELS))
    records = np.concatenate(parts)
    y = torch.from_numpy(records[:, labels - 1].astype(np.int64))
    if int(y.max()) >= classes:
        raise SystemExit(f"{folder} has a label {int(y.max())}: these are not {classes} classes")
    x = torch.from_numpy(records[:, labels:].astype(np.float32)).view(-1, 3, 32, 32) / 255.0
    mean, deviation = (torch.tensor(one).view(1, 3, 1, 1) for one in (MEAN, DEVIATION))
    return (x - mean) / deviation, y


def task_of(name: str, folder: Path | None) -> Task:
    """The task of that name; all but digits are read from ``folder``."""
    if name == "digits":
        return digits()
    if name not in ("cifar10", "cifar100"):
        raise SystemExit(f"there is no task {name!r}: use digits, cifar10 or cifar100")
    if folder is None:
        raise SystemExit(f"{name} needs --data FOLDER, where its binary version is unpacked")
    return cifar(folder, int(name.removeprefix("cifar")))
