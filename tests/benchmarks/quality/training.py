"""The dense recipe, unchanged for every method."""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.digits import groups
from benchmarks.quality.tasks import Task


def train(
    model: nn.Module,
    task: Task,
    seed: int,
    epochs: float,
    *,
    batch: int = 64,
    rate: float = 0.1,
    decay: float = 5e-4,
    part: float = 1.0,
    progress: Callable[[int, int], None] = lambda _done, _steps: None,
) -> tuple[float, float]:
    """(test accuracy, seconds): SGD with momentum, a one-cycle rate, decay not on coefficients.

    ``part`` of the schedule is run, from its beginning. ``progress`` is told the steps so far and
    all of them.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.SGD(groups(model, decay), lr=rate, momentum=0.9)
    batch = min(batch, len(task.x))
    steps = max(2, round(epochs * (len(task.x) // batch)))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    begin, last = time.perf_counter(), max(1, round(part * steps))
    model.train()
    order: list[Tensor] = []
    for step in range(last):
        if not order:
            whole = len(task.x) // batch
            order = list(torch.randperm(len(task.x), generator=generator).split(batch)[:whole])
        index = order.pop()
        loss = F.cross_entropy(model(augmented(task, index, generator)), task.y[index])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        progress(step + 1, last)
    return accuracy(model, task), time.perf_counter() - begin


def augmented(task: Task, index: Tensor, generator: torch.Generator) -> Tensor:
    """Of photographs, mirrored halves and shifts by up to four pixels; of digits, as they are."""
    x = task.x[index]
    if not task.flips:
        return x
    mirrored = torch.rand(len(x), generator=generator) < 0.5
    x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    down, right = (int(torch.randint(0, 9, (), generator=generator)) for _ in "yx")
    return F.pad(x, (4, 4, 4, 4))[:, :, down : down + 32, right : right + 32]


@torch.no_grad()
def accuracy(model: nn.Module, task: Task) -> float:
    """Share of the test images that are classified rightly."""
    model.eval()
    pairs = zip(task.x_test.split(64), task.y_test.split(64), strict=True)
    return sum(int((model(x).argmax(1) == y).sum()) for x, y in pairs) / len(task.x_test)


@torch.no_grad()
def recalibrate(model: nn.Module, task: Task, count: int = 512) -> None:
    """Statistics of batch norms afresh, from training images: those of other weights mislead."""
    norms = [one for one in model.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
    momenta = [one.momentum for one in norms]
    for one in norms:
        one.reset_running_stats()
        one.momentum = None
    model.train()
    for x in task.x[:count].split(64):
        model(x)
    for one, momentum in zip(norms, momenta, strict=True):
        one.momentum = momentum
