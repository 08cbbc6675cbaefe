"""The quality benchmark: its data, its baselines, and that a sweep goes on where it was stopped."""

import numpy as np
import pytest
import torch

from benchmarks.calibration import correlation
from benchmarks.quality.__main__ import main
from benchmarks.quality.methods import ARCHITECTURES, build, dense, of_width, parameters
from benchmarks.quality.tasks import PIXELS, Task, cifar
from benchmarks.quality.training import augmented, recalibrate

torch.set_num_threads(1)


def records(path, labels, seed):
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 256, size=(len(labels), PIXELS), dtype=np.uint8)
    path.write_bytes(np.concatenate([np.array(labels, dtype=np.uint8), pixels], axis=1).tobytes())
    return pixels


def test_cifar_is_read_from_its_binary_files(tmp_path):
    first = [records(tmp_path / f"data_batch_{n}.bin", [[n], [9]], n) for n in range(1, 6)]
    records(tmp_path / "test_batch.bin", [[7]], 0)
    task = cifar(tmp_path, 10)
    assert task.x.shape == (10, 3, 32, 32) and task.y.tolist() == [1, 9, 2, 9, 3, 9, 4, 9, 5, 9]
    assert task.y_test.tolist() == [7]
    red = (first[0][0, :1024].reshape(32, 32) / 255 - 0.4914) / 0.2470
    np.testing.assert_allclose(task.x[0, 0].numpy(), red, rtol=1e-4, atol=1e-5)
    records(tmp_path / "train.bin", [[1, 99], [2, 0]], 0)
    records(tmp_path / "test.bin", [[3, 50]], 0)
    assert cifar(tmp_path, 100).y.tolist() == [99, 0]


def test_cifar_files_that_are_not_whole_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="is not there"):
        cifar(tmp_path, 100)
    records(tmp_path / "train.bin", [[1, 99]], 0)
    (tmp_path / "test.bin").write_bytes(b"\0" * PIXELS)
    with pytest.raises(SystemExit, match="cut off"):
        cifar(tmp_path, 100)
    records(tmp_path / "test.bin", [[1, 100]], 0)
    with pytest.raises(SystemExit, match="label 100"):
        cifar(tmp_path, 100)


@pytest.mark.parametrize("name", ["wrn_16_1", "resnet20"])
def test_narrow_is_the_widest_within_the_budget(name):
    architecture = ARCHITECTURES[name]
    whole = parameters(dense(architecture, 10))
    model = build("narrow", architecture, 10, "25%", 0)
    wider = of_width(architecture, 10, model.conv1.out_channels + 1)
    assert parameters(model) <= 0.25 * whole < parameters(wider)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert parameters(build("narrow", architecture, 10, "100%", 0)) == whole


def test_fresh_statistics_keep_the_momentum_and_the_weights():
    torch.manual_seed(0)
    model = dense(ARCHITECTURES["resnet20"], 10)
    before = [one.clone() for one in model.parameters()]
    x = torch.randn(70, 3, 32, 32) + 2
    task = Task("noise", 10, x, torch.zeros(70, dtype=torch.int64), x, x, flips=True)
    recalibrate(model, task)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert model.bn1.momentum == 0.1 and model.bn1.num_batches_tracked == 2
    shifted = augmented(task, torch.arange(4), torch.Generator().manual_seed(0))
    assert shifted.shape == (4, 3, 32, 32) and not torch.equal(shifted, x[:4])


def test_a_sweep_goes_on_where_it_was_stopped(tmp_path, capsys):
    asked = "--models wrn_16_1 --methods dense ring --budgets 10% --epochs 0.1".split()
    main([*asked, "--output", str(tmp_path)])
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    table = capsys.readouterr().out
    assert len(files) == 2 and "| ring | 17,506 |" in table and "| dense | 175,066 |" in table
    last = next(iter(files))
    last.unlink()
    main([*asked, "--output", str(tmp_path)])
    again = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert [path for path in again if again[path] != files[path]] == [last]
    assert capsys.readouterr().out.splitlines()[-2:] == table.splitlines()[-2:]
    assert (tmp_path / "table.md").is_file() and (tmp_path / "plot.html").is_file()


def test_correlations_come_with_an_interval():
    draw = np.random.default_rng(1)
    values = draw.normal(size=40)
    rank, low, high = correlation([(float(v), float(v) ** 3) for v in values])
    assert (rank, low, high) == pytest.approx((1.0, 1.0, 1.0))
    noisy = [(float(v), float(v + draw.normal())) for v in values]
    rank, low, high = correlation(noisy)
    assert low < rank < high < 1.0
    with pytest.raises(SystemExit, match="more epochs"):
        correlation([(1.0, 0.1), (2.0, 0.1), (3.0, 0.1)])
