"""Models of text, speech and time series."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from written import ids, written


class Chomp1d(nn.Module):
    def __init__(self, chomp_size):
        super().__init__()
        self.chomp_size = chomp_size

    def forward(self, x):
        return x[:, :, : -self.chomp_size].contiguous()


class TemporalBlock(nn.Module):
    def __init__(self, n_inputs, n_outputs, kernel_size, stride, dilation, padding, dropout=0.2):
        super().__init__()
        weight_norm = nn.utils.parametrizations.weight_norm
        self.conv1 = weight_norm(
            nn.Conv1d(n_inputs, n_outputs, kernel_size, stride, padding, dilation)
        )
        self.conv2 = weight_norm(
            nn.Conv1d(n_outputs, n_outputs, kernel_size, stride, padding, dilation)
        )
        self.net = nn.Sequential(
            self.conv1, Chomp1d(padding), nn.ReLU(), nn.Dropout(dropout),
            self.conv2, Chomp1d(padding), nn.ReLU(), nn.Dropout(dropout),
        )  # fmt: skip
        self.downsample = nn.Conv1d(n_inputs, n_outputs, 1) if n_inputs != n_outputs else None
        self.relu = nn.ReLU()

    def forward(self, x):
        out = self.net(x)
        res = x if self.downsample is None else self.downsample(x)
        return self.relu(out + res)


@written((2, 16))
class TCN(nn.Module):
    def __init__(self, num_inputs=2, channels=(8, 8, 12), kernel_size=2):
        super().__init__()
        layers = []
        for i, out_channels in enumerate(channels):
            d = 2**i
            c = num_inputs if i == 0 else channels[i - 1]
            layers += [TemporalBlock(c, out_channels, kernel_size, 1, d, (kernel_size - 1) * d)]
        self.network = nn.Sequential(*layers)

    def forward(self, x):
        return self.network(x)


class CausalConv1d(nn.Conv1d):
    def __init__(self, *args, dilation=1, **kwargs):
        super().__init__(*args, padding=(args[2] - 1) * dilation, dilation=dilation, **kwargs)

    def forward(self, x):
        return super().forward(x)[..., : -self.padding[0]]


@written(ids(16, 20))
class WaveNet(nn.Module):
    def __init__(self, layers=4, res=8, skip=12, classes=16):
        super().__init__()
        self.classes = classes
        self.start = nn.Conv1d(classes, res, 1)
        self.filters, self.gates = nn.ModuleList(), nn.ModuleList()
        self.res, self.skips = nn.ModuleList(), nn.ModuleList()
        for i in range(layers):
            self.filters.append(CausalConv1d(res, res, 2, dilation=2 ** (i % 3)))
            self.gates.append(CausalConv1d(res, res, 2, dilation=2 ** (i % 3)))
            self.res.append(nn.Conv1d(res, res, 1))
            self.skips.append(nn.Conv1d(res, skip, 1))
        self.end = nn.Sequential(nn.ReLU(), nn.Conv1d(skip, classes, 1))

    def forward(self, x):
        x = F.one_hot(x, self.classes).float().transpose(1, 2)
        x, skip = self.start(x), 0
        for f, g, r, s in zip(self.filters, self.gates, self.res, self.skips, strict=True):
            z = torch.tanh(f(x)) * torch.sigmoid(g(x))
            skip = s(z) + skip
            x = x + r(z)
        return self.end(skip)


class Highway(nn.Module):
    def __init__(self, size, num_layers, f=torch.relu):
        super().__init__()
        self.num_layers, self.f = num_layers, f
        self.nonlinear = nn.ModuleList([nn.Linear(size, size) for _ in range(num_layers)])
        self.linear = nn.ModuleList([nn.Linear(size, size) for _ in range(num_layers)])
        self.gate = nn.ModuleList([nn.Linear(size, size) for _ in range(num_layers)])

    def forward(self, x):
        for layer in range(self.num_layers):
            gate = torch.sigmoid(self.gate[layer](x))
            x = gate * self.f(self.nonlinear[layer](x)) + (1 - gate) * self.linear[layer](x)
        return x


@written(ids(30, 5, 9))
class CharCNN(nn.Module):
    def __init__(self, vocab=30, dim=6, kernels=((1, 4), (2, 4), (3, 8))):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim, padding_idx=0)
        for i, (width, num) in enumerate(kernels):
            self.add_module(f"char_conv_{i}", nn.Conv1d(dim, num, kernel_size=width, bias=True))
        self.n = len(kernels)
        self.highway = Highway(16, 2)
        self.proj = nn.Linear(16, 8)

    def forward(self, words):
        b, t, c = words.size()
        x = self.embed(words.view(-1, c)).transpose(1, 2)
        convs = []
        for i in range(self.n):
            conv = getattr(self, f"char_conv_{i}")
            y, _ = torch.max(conv(x), dim=-1)
            convs.append(torch.relu(y))
        return self.proj(self.highway(torch.cat(convs, dim=-1))).view(b, t, -1)


class Attention(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.attn, self.v = nn.Linear(hidden * 2, hidden), nn.Parameter(torch.rand(hidden))
        stdv = 1.0 / math.sqrt(self.v.size(0))
        self.v.data.uniform_(-stdv, stdv)

    def forward(self, hidden, outputs):
        h = hidden.repeat(outputs.size(0), 1, 1).transpose(0, 1)
        e = self.score(h, outputs.transpose(0, 1))
        return F.softmax(e, dim=1).unsqueeze(1)

    def score(self, hidden, outputs):
        energy = torch.tanh(self.attn(torch.cat([hidden, outputs], 2))).transpose(1, 2)
        v = self.v.repeat(outputs.size(0), 1).unsqueeze(1)
        return torch.bmm(v, energy).squeeze(1)


class AttnDecoder(nn.Module):
    def __init__(self, vocab, hidden):
        super().__init__()
        self.embed, self.attention = nn.Embedding(vocab, hidden), Attention(hidden)
        self.gru, self.out = nn.GRU(hidden * 2, hidden), nn.Linear(hidden * 2, vocab)

    def forward(self, token, last_hidden, encoder_outputs):
        embedded = self.embed(token).unsqueeze(0)
        weights = self.attention(last_hidden[-1], encoder_outputs)
        context = weights.bmm(encoder_outputs.transpose(0, 1)).transpose(0, 1)
        output, hidden = self.gru(torch.cat([embedded, context], 2), last_hidden)
        output = self.out(torch.cat([output.squeeze(0), context.squeeze(0)], 1))
        return F.log_softmax(output, dim=1), hidden, weights


@written(ids(20, 6), ids(20, 5))
class Seq2Seq(nn.Module):
    def __init__(self, vocab=20, hidden=8):
        super().__init__()
        self.embed, self.hidden = nn.Embedding(vocab, hidden), hidden
        self.encoder = nn.GRU(hidden, hidden, 1, bidirectional=True)
        self.decoder, self.vocab = AttnDecoder(vocab, hidden), vocab

    def forward(self, src, trg):
        src, trg = src.t(), trg.t()
        max_len, batch_size = trg.size(0), src.size(1)
        outputs = torch.zeros(max_len, batch_size, self.vocab)
        enc, hidden = self.encoder(self.embed(src))
        enc = enc[:, :, : self.hidden] + enc[:, :, self.hidden :]
        hidden = hidden[:1]
        output = trg[0, :]
        for t in range(1, max_len):
            output, hidden, _ = self.decoder(output, hidden, enc)
            outputs[t] = output
            output = trg[t] if self.training else output.max(1)[1]
        return outputs.transpose(0, 1)


class ConvLSTMCell(nn.Module):
    def __init__(self, i, h, kernel_size=3, bias=True):
        super().__init__()
        self.hidden_dim = h
        self.conv = nn.Conv2d(i + h, 4 * h, kernel_size, padding=kernel_size // 2, bias=bias)

    def forward(self, input_tensor, cur_state):
        h_cur, c_cur = cur_state
        combined = self.conv(torch.cat([input_tensor, h_cur], dim=1))
        i, f, o, g = torch.split(combined, self.hidden_dim, dim=1)
        c_next = torch.sigmoid(f) * c_cur + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c_next), c_next

    def init_hidden(self, batch_size, image_size):
        height, width = image_size
        device = self.conv.weight.device
        shape = (batch_size, self.hidden_dim, height, width)
        return torch.zeros(*shape, device=device), torch.zeros(*shape, device=device)


@written((4, 3, 6, 6))
class ConvLSTM(nn.Module):
    def __init__(self, input_dim=3, hidden=(4, 4), return_all_layers=True):
        super().__init__()
        dims = (input_dim, *hidden)
        self.cell_list = nn.ModuleList(
            [ConvLSTMCell(dims[i], hidden[i]) for i in range(len(hidden))]
        )
        self.return_all_layers = return_all_layers

    def forward(self, input_tensor, hidden_state=None):
        b, _, _, h, w = input_tensor.size()
        if hidden_state is not None:
            raise NotImplementedError
        hidden_state = [c.init_hidden(b, (h, w)) for c in self.cell_list]
        layer_output_list, last_state_list = [], []
        cur = input_tensor
        for idx, cell in enumerate(self.cell_list):
            h, c = hidden_state[idx]
            inner = []
            for t in range(cur.size(1)):
                h, c = cell(input_tensor=cur[:, t, :, :, :], cur_state=[h, c])
                inner.append(h)
            cur = torch.stack(inner, dim=1)
            layer_output_list.append(cur)
            last_state_list.append([h, c])
        if not self.return_all_layers:
            layer_output_list = layer_output_list[-1:]
        return layer_output_list, last_state_list


class Prenet(nn.Module):
    def __init__(self, in_dim, sizes):
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Linear(a, b, bias=False) for a, b in zip([in_dim, *sizes[:-1]], sizes, strict=True)]
        )

    def forward(self, x):
        for linear in self.layers:
            x = F.dropout(F.relu(linear(x)), p=0.5, training=True)
        return x


@written((6, 10), (5, 4))
class TacotronDecoder(nn.Module):
    """Location-sensitive attention, with what is attended to kept on the module meanwhile."""

    def __init__(self, n_mel=4, enc=10, rnn=12, att=6):
        super().__init__()
        self.n_mel, self.rnn_dim = n_mel, rnn
        self.prenet = Prenet(n_mel, [8, 8])
        self.attention_rnn = nn.LSTMCell(8 + enc, rnn)
        self.query, self.memory_layer = nn.Linear(rnn, att, bias=False), nn.Linear(enc, att)
        self.location = nn.Conv1d(2, 4, 5, padding=2, bias=False)
        self.location_dense, self.v = nn.Linear(4, att, bias=False), nn.Linear(att, 1, bias=False)
        self.proj, self.gate = nn.Linear(rnn + enc, n_mel), nn.Linear(rnn + enc, 1)

    def initialize_decoder_states(self, memory):
        B, T = memory.size(0), memory.size(1)
        self.h = memory.new_zeros(B, self.rnn_dim)
        self.c = memory.new_zeros(B, self.rnn_dim)
        self.weights = memory.new_zeros(B, T)
        self.cum = memory.new_zeros(B, T)
        self.context = memory.new_zeros(B, memory.size(2))
        self.memory = memory
        self.processed = self.memory_layer(memory)

    def decode(self, x):
        self.h, self.c = self.attention_rnn(torch.cat((x, self.context), -1), (self.h, self.c))
        self.h = F.dropout(self.h, 0.1, self.training)
        loc = torch.cat((self.weights.unsqueeze(1), self.cum.unsqueeze(1)), dim=1)
        loc = self.location_dense(self.location(loc).transpose(1, 2))
        e = self.v(torch.tanh(self.query(self.h.unsqueeze(1)) + loc + self.processed)).squeeze(-1)
        self.weights = F.softmax(e, dim=1)
        self.cum += self.weights
        self.context = torch.bmm(self.weights.unsqueeze(1), self.memory).squeeze(1)
        out = torch.cat((self.h, self.context), dim=1)
        return self.proj(out), self.gate(out), self.weights

    def forward(self, memory, mels):
        go = memory.new_zeros(memory.size(0), self.n_mel).unsqueeze(0)
        inputs = self.prenet(torch.cat((go, mels.transpose(0, 1)), dim=0))
        self.initialize_decoder_states(memory)
        outs, gates, aligns = [], [], []
        while len(outs) < inputs.size(0) - 1:
            out, gate, align = self.decode(inputs[len(outs)])
            outs += [out.squeeze(1)]
            gates += [gate.squeeze(1)]
            aligns += [align]
        return torch.stack(outs).transpose(0, 1), torch.stack(gates).t(), torch.stack(aligns, 1)
