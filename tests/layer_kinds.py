"""Models around one layer of torch each; they add themselves to the table of site_kinds.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from site_kinds import case, ids, images

# --------------------------------------------------------------------------- linear, convolutions


class Between(nn.Module):
    """A layer and a linear one behind it, with no use of their sizes."""

    def __init__(self, layer, width):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, 8)

    def forward(self, x):
        return self.head(self.layer(x).flatten(2).mean(2))


@case(images(32, 20), name="conv1d", kind="Conv1d", kernel_size=3, padding=1)
@case(images(32, 9, 9), name="conv2d_groups", kind="Conv2d", kernel_size=3, groups=4)
@case(images(32, 9, 9), name="conv2d_depthwise", kind="Conv2d", kernel_size=5, groups=32)
@case(images(32, 9, 9), name="conv2d_same", kind="Conv2d", kernel_size=(3, 2), padding="same")
@case(
    images(32, 9, 9),
    name="conv2d_reflect",
    kind="Conv2d",
    kernel_size=3,
    padding=(2, 1),
    padding_mode="reflect",
)
@case(
    images(32, 9, 9),
    name="conv2d_circular",
    kind="Conv2d",
    kernel_size=3,
    padding=1,
    padding_mode="circular",
    dilation=2,
    bias=False,
)
@case(images(32, 4, 4, 4), name="conv3d", kind="Conv3d", kernel_size=2, stride=(1, 2, 2))
@case(images(32, 9), name="transposed1d", kind="ConvTranspose1d", kernel_size=3, stride=2)
@case(
    images(32, 5, 5),
    name="transposed2d",
    kind="ConvTranspose2d",
    kernel_size=3,
    stride=2,
    output_padding=1,
    groups=2,
)
@case(images(32, 3, 3, 3), name="transposed3d", kind="ConvTranspose3d", kernel_size=2)
def convolution(kind, **arguments):
    return Between(getattr(nn, kind)(32, 32, **arguments), 32)


@case(lambda batch: (torch.randn(batch, 24), torch.randn(batch, 16)))
class Bilinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.pair, self.head = nn.Bilinear(24, 16, 10), nn.Linear(10, 24, bias=False)

    def forward(self, x, y):
        return self.head(self.pair(x, y)) + x


@case(images(40))
class TransposedTie(nn.Module):
    """An autoencoder whose decoder reads the encoder's weight."""

    def __init__(self):
        super().__init__()
        self.encode, self.shift = nn.Linear(40, 32), nn.Parameter(torch.zeros(40))

    def forward(self, x):
        return F.linear(torch.relu(self.encode(x)), self.encode.weight.t(), self.shift)


@case(images(32, 8, 8))
class TiedConvolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(32, 32, 3), nn.Conv2d(32, 32, 3, padding=1)
        self.third = nn.Conv2d(32, 32, 3, stride=2)
        self.second.weight = self.third.weight = self.first.weight

    def forward(self, x):
        return self.third(self.second(torch.relu(self.first(x))))


# --------------------------------------------------------------------------- embeddings


@case(ids(7, 60), name="embedding")
@case(ids(7, 60), name="embedding_padding", padding_idx=3)
@case(ids(7, 60), name="embedding_by_frequency", scale_grad_by_freq=True)
class Embedded(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.embed, self.head = nn.Embedding(60, 32, **options), nn.Linear(32, 48)

    def forward(self, ids):
        return self.head(self.embed(ids))


@case(ids(7, 60), name="embedding_max_norm", renormed=True)
class Renormed(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(60, 32, max_norm=0.9), nn.Linear(32, 200)

    def forward(self, ids):
        return self.head(self.embed(ids))


@case(ids(7, 60))
class TiedEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(60, 32), nn.Linear(32, 60)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(torch.tanh(self.embed(ids)))


@case(ids(7, 60))
class FunctionalEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(60, 32))
        self.head = nn.Linear(32, 48)

    def forward(self, ids):
        return self.head(F.embedding(ids, self.table)) + self.head(self.table[ids])


@case(ids(7, 60), name="bag_sum", mode="sum")
@case(ids(7, 60), name="bag_mean", mode="mean", padding_idx=2)
@case(ids(2, 60), name="bag_max", mode="max")
class Bag(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(60, 32, **options), nn.Linear(32, 48)

    def forward(self, ids):
        return self.head(self.bag(ids))


@case(
    lambda batch: (
        torch.randint(0, 60, (4 * batch,)),
        torch.arange(batch) * 4,
        torch.rand(4 * batch),
    )
)
class BagOffsets(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(60, 32, mode="sum"), nn.Linear(32, 48)

    def forward(self, ids, offsets, weights):
        return self.head(self.bag(ids, offsets, per_sample_weights=weights))


# --------------------------------------------------------------------------- recurrent


@case(images(6, 32), name="lstm_deep", kind="LSTM", num_layers=3, dropout=0.3, batch_first=True)
@case(images(6, 32), name="lstm_projected", kind="LSTM", proj_size=16, bidirectional=True)
@case(images(6, 32), name="gru_bidirectional", kind="GRU", num_layers=2, bidirectional=True)
@case(images(6, 32), name="gru_unbiased", kind="GRU", bias=False, batch_first=True)
@case(images(6, 32), name="rnn_relu", kind="RNN", nonlinearity="relu", batch_first=True)
class Recurring(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.rnn = getattr(nn, kind)(32, 32, **options)

    def forward(self, x):
        output, state = self.rnn(x)
        return output, state


@case(images(5, 32), name="lstm_cell", kind="LSTMCell")
@case(images(5, 32), name="gru_cell", kind="GRUCell")
@case(images(5, 32), name="rnn_cell", kind="RNNCell")
class Steps(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cell = getattr(nn, kind)(32, 32)

    def forward(self, x):
        state = self.cell(x[:, 0])
        for step in (1, 2, 3):
            state = self.cell(x[:, step], state)
        return state


# --------------------------------------------------------------------------- attention


@case(images(6, 32), name="attention")
@case(images(6, 32), name="attention_weights", need_weights=True)
@case(images(6, 32), name="attention_bias_kv", add_bias_kv=True, add_zero_attn=True)
@case(images(6, 32), name="attention_masked", masked=True, need_weights=True)
@case(images(6, 32), name="attention_unbiased", bias=False, dropout=0.2)
class Attending(nn.Module):
    def __init__(self, need_weights=False, masked=False, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True, **options)
        self.need_weights, self.masked = need_weights, masked

    def forward(self, x):
        mask = padding = None
        if self.masked:
            mask = torch.ones(6, 6, dtype=torch.bool, device=x.device).triu(1)
            padding = x[:, :, 0] > 2
        output, weights = self.attention(
            x, x, x, key_padding_mask=padding, attn_mask=mask, need_weights=self.need_weights
        )
        return (output, weights) if self.need_weights else output


@case(lambda batch: (torch.randn(6, batch, 32), torch.randn(4, batch, 24)))
class CrossAttending(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4, kdim=24, vdim=24)

    def forward(self, x, memory):
        output, weights = self.attention(x, memory, memory, average_attn_weights=False)
        return output, weights


@case(images(6, 32), name="encoder_layer")
@case(images(6, 32), name="encoder_layer_gelu", activation="gelu", norm_first=True)
@case(images(6, 32), name="encoder_layer_unbiased", bias=False, dropout=0.0)
class Encoding(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, **options)
        self.head = nn.Linear(32, 8)

    def forward(self, x):
        return self.head(self.layer(x))


@case(images(6, 32))
class EncodingPadded(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)

    def forward(self, x):
        padding = torch.arange(6, device=x.device).expand(x.shape[0], 6) > 3
        # Where padding lies, the fast path leaves zeros.
        return self.layer(x, src_key_padding_mask=padding)[:, :4]


@case(lambda batch: (torch.randn(batch, 6, 32), torch.randn(batch, 4, 32)))
class Decoding(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerDecoderLayer(32, 4, 64, batch_first=True)

    def forward(self, x, memory):
        return self.layer(x, memory)


@case(lambda batch: (torch.randn(batch, 6, 32), torch.randn(batch, 4, 32)))
class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Transformer(32, 4, 2, 2, 64, batch_first=True)

    def forward(self, source, target):
        return self.model(source, target)


# --------------------------------------------------------------------------- norms, activations


@case(images(32, 6), name="batch_norm1d", kind="BatchNorm1d")
@case(images(32, 6), name="group_norm", kind="GroupNorm", num_groups=4, num_channels=32)
@case(images(32, 6), name="instance_norm", kind="InstanceNorm1d", affine=True)
@case(images(32, 6), name="instance_norm_tracking", kind="InstanceNorm1d", track_running_stats=True)
@case(images(32, 6), name="batch_norm_untracked", kind="BatchNorm1d", track_running_stats=False)
@case(images(32, 6), name="batch_norm2d", kind="BatchNorm2d", trailing=(2, 3), affine=False)
@case(images(32, 6), name="batch_norm3d", kind="BatchNorm3d", trailing=(1, 2, 3))
@case(images(32, 6), name="local_response_norm", kind="LocalResponseNorm", size=5)
@case(images(32, 6), name="prelu", kind="PReLU", num_parameters=32)
def normed(kind, trailing=(6,), **options):
    channels = (
        {} if {"size", "num_channels", "num_parameters"} & set(options) else {"num_features": 32}
    )
    layer = getattr(nn, kind)(**channels, **options)
    spread = nn.Unflatten(2, trailing)
    return Between(nn.Sequential(nn.Conv1d(32, 32, 1), spread, layer, nn.Flatten(2)), 32)


@case(images(6, 32), name="layer_norm", kind="LayerNorm")
@case(images(6, 32), name="layer_norm_unbiased", kind="LayerNorm", bias=False)
@case(images(6, 32), name="layer_norm_2d", kind="LayerNorm", shape=(6, 32))
@case(images(6, 32), name="rms_norm", kind="RMSNorm", eps=1e-6)
@case(images(6, 32), name="rms_norm_default", kind="RMSNorm")
class Normed(nn.Module):
    def __init__(self, kind, shape=32, **options):
        super().__init__()
        self.fc, self.norm = nn.Linear(32, 32), getattr(nn, kind)(shape, **options)
        self.head = nn.Linear(32, 64)

    def forward(self, x):
        return self.head(self.norm(self.fc(x)))
