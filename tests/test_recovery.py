"""Constructor calls of torch.nn layers are recovered from instances, and proved."""

import pytest
import torch
from torch import nn

from planner.emission.architecture import construct
from planner.ir import Leaf, Slot
from planner.tracing.recovery import is_torch_leaf, recover, without_defaults

# Every public layer of torch.nn that takes few arguments, plain and with unusual ones.
CALLS = """
Linear(3, 4) | Linear(3, 4, bias=False) | Bilinear(2, 3, 4) | Identity() | Flatten()
Flatten(0, -1) | Unflatten(1, (2, 3)) | Conv1d(4, 8, 3)
Conv1d(4, 8, 5, stride=2, padding=2, dilation=1, groups=2)
Conv2d(4, 8, 3, padding=1, bias=False) | Conv2d(4, 8, (1, 3), stride=(2, 1), padding=(0, 1))
Conv2d(4, 4, 3, padding="same", padding_mode="reflect", groups=4) | Conv3d(2, 2, 3, dilation=2)
ConvTranspose1d(2, 4, 3) | ConvTranspose2d(2, 4, 3, stride=2, output_padding=1, padding=1)
ConvTranspose3d(2, 4, 2) | Unfold(3, padding=1) | Fold((4, 5), 2) | MaxPool1d(2)
MaxPool2d(3, 2, 1) | MaxPool2d((2, 1), ceil_mode=True, return_indices=True) | MaxPool3d(2)
MaxUnpool2d(2) | AvgPool1d(2) | AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
AvgPool3d(2) | LPPool1d(2, 3) | LPPool2d(2, 3, stride=2) | AdaptiveAvgPool1d(1)
AdaptiveAvgPool2d((1, 1)) | AdaptiveAvgPool2d((3, None)) | AdaptiveMaxPool2d(2)
AdaptiveAvgPool3d(1) | FractionalMaxPool2d(2, output_size=3) | ReflectionPad1d(2)
ReflectionPad2d((1, 2, 3, 4)) | ReplicationPad2d(1) | ZeroPad2d(1) | ConstantPad2d(1, 3.5)
CircularPad2d(1) | ELU() | ELU(0.5, inplace=True) | Hardshrink() | Hardsigmoid()
Hardtanh(-2.0, 2.0) | Hardswish(inplace=True) | LeakyReLU(0.2) | LogSigmoid() | PReLU()
PReLU(4, init=0.1) | ReLU() | ReLU(inplace=True) | ReLU6() | RReLU() | SELU() | CELU(2.0) | GELU()
GELU(approximate="tanh") | Sigmoid() | SiLU() | Mish() | Softplus(2, 10) | Softshrink()
Softsign() | Tanh() | Tanhshrink() | Threshold(0.1, 20) | GLU(1) | Softmin(dim=1)
Softmax(dim=-1) | Softmax2d() | LogSoftmax(dim=1) | BatchNorm1d(4)
BatchNorm2d(4, eps=1e-3, momentum=0.01) | BatchNorm2d(4, momentum=None)
BatchNorm2d(4, affine=False) | BatchNorm2d(4, track_running_stats=False) | BatchNorm3d(4)
SyncBatchNorm(4) | GroupNorm(2, 4) | GroupNorm(2, 4, affine=False) | InstanceNorm2d(4)
InstanceNorm2d(4, affine=True, track_running_stats=True) | LayerNorm(4)
LayerNorm((3, 4), eps=1e-6) | LayerNorm(4, elementwise_affine=False) | LayerNorm(4, bias=False)
LocalResponseNorm(2) | RMSNorm(4) | RMSNorm((2, 4), eps=1e-5) | RNN(3, 4)
RNN(3, 4, nonlinearity="relu", bias=False)
LSTM(3, 4, 2, batch_first=True, dropout=0.1, bidirectional=True) | LSTM(3, 4, proj_size=2)
GRU(3, 4, 2) | RNNCell(3, 4) | RNNCell(3, 4, nonlinearity="relu") | LSTMCell(3, 4, bias=False)
GRUCell(3, 4) | Dropout() | Dropout(0.1, inplace=True) | Dropout1d(0.2) | Dropout2d(0.2)
Dropout3d(0.2) | AlphaDropout(0.3) | Embedding(5, 3)
Embedding(5, 3, padding_idx=1, max_norm=2.0) | EmbeddingBag(5, 3, mode="sum")
CosineSimilarity(dim=0) | PixelShuffle(2) | PixelUnshuffle(2) | ChannelShuffle(2)
Upsample(scale_factor=2) | Upsample(size=(3, 4), mode="bilinear", align_corners=True)
UpsamplingNearest2d(scale_factor=2) | MultiheadAttention(8, 2)
MultiheadAttention(8, 2, 0.1, batch_first=True)
MultiheadAttention(8, 2, kdim=4, vdim=6, add_bias_kv=True, add_zero_attn=True)
MultiheadAttention(8, 2, bias=False) | TransformerEncoderLayer(8, 2)
TransformerDecoderLayer(8, 2, 16)
TransformerEncoderLayer(8, 2, 16, activation="gelu", norm_first=True, batch_first=True, bias=False)
CrossEntropyLoss(label_smoothing=0.1) | MSELoss(reduction="sum")
""".replace("\n", " | ").split(" | ")
CALLS = [call for call in CALLS if call]


def build(text):
    return eval(f"nn.{text}", {"nn": nn})


def state(module):
    return {key: (value.shape, value.dtype) for key, value in module.state_dict().items()}


def test_the_list_covers_the_library():
    types = {type(build(call)) for call in CALLS}
    assert len(types) >= 90
    assert all(is_torch_leaf(build(call)) for call in CALLS)


@pytest.mark.parametrize("call", CALLS)
def test_the_recovered_call_builds_the_same_layer(call):
    module = build(call)
    leaf = recover(module)
    for one in (leaf, without_defaults(leaf)):
        other = eval(construct(one), {"nn": nn, "torch": torch})
        assert type(other) is type(module)
        assert repr(other) == repr(module)
        assert state(other) == state(module)


@pytest.mark.parametrize(
    "call",
    ["Linear(3, 4)", "Conv2d(4, 8, 3, padding=1, bias=False)", "LSTM(3, 4, num_layers=2)",
     "LayerNorm(4)",
     "BatchNorm2d(4)", "Dropout(p=0.1)", "MultiheadAttention(8, 2)", "Embedding(5, 3)",
     "ReLU(inplace=True)", "MaxPool2d(3, stride=2)"],
)  # fmt: skip
def test_calls_read_as_people_write_them(call):
    assert construct(without_defaults(recover(build(call)))) == f"nn.{call}"


def test_numbers_stay_where_they_are_defaults():
    """Folding is to see stride 1 and stride 2 as one structure."""
    one, two = recover(nn.Conv2d(4, 4, 3)), recover(nn.Conv2d(4, 4, 3, stride=2))
    assert [name for name, _ in one.kwargs] == [name for name, _ in two.kwargs]
    kept = Leaf("Conv2d", (4, 4, 3), (("stride", Slot("stride")), ("padding", 0)))
    assert without_defaults(kept).kwargs == (("stride", Slot("stride")),)


def test_a_layer_that_was_changed_is_not_recovered():
    changed = nn.BatchNorm2d(4)
    changed.register_parameter("extra", nn.Parameter(torch.zeros(1)))
    with pytest.raises(ValueError, match="cannot be rebuilt"):
        recover(changed)
    linear = nn.Linear(4, 4)
    linear.weight = nn.Parameter(torch.zeros(4, 5))
    with pytest.raises(ValueError, match="cannot be rebuilt"):
        recover(linear)
    with pytest.raises(ValueError, match="public"):
        recover(nn.MultiheadAttention(8, 2).out_proj)


def test_containers_and_subclasses_are_no_leaves():
    class Own(nn.Linear):
        pass

    containers = [nn.Sequential(), nn.ModuleList(), nn.ModuleDict(), nn.ParameterList()]
    assert not any(is_torch_leaf(module) for module in [*containers, Own(1, 1)])
