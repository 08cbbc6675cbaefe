"""Layers of one's own: experts, hypernetworks, adapters, splines, quantisers, solvers."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from written import ids, written


@written((5, 8))
class MoE(nn.Module):
    """Top-k routing; every expert sees all tokens, weighted."""

    def __init__(self, d=8, experts=4, k=2):
        super().__init__()
        self.gate, self.k = nn.Linear(d, experts, bias=False), k
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(d, 16), nn.SiLU(), nn.Linear(16, d)) for _ in range(experts)
        )

    def forward(self, x):
        b, s, d = x.shape
        x = x.view(-1, d)
        logits = self.gate(x)
        weights, selected = torch.topk(F.softmax(logits, dim=1, dtype=torch.float), self.k, dim=-1)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        dense = torch.zeros_like(logits).scatter(1, selected, weights.to(logits.dtype))
        out = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            out += expert(x) * dense[:, i, None]
        load = F.one_hot(selected, len(self.experts)).float().mean((0, 1))
        return out.view(b, s, d), (load * F.softmax(logits, 1).mean(0)).sum() * len(self.experts)


@written((5, 8))
class MoEIndexAdd(nn.Module):
    """Tokens sorted by expert, capacity fixed by shape, summed back by index_add_."""

    def __init__(self, d=8, experts=4):
        super().__init__()
        self.gate = nn.Linear(d, experts)
        self.w1 = nn.Parameter(torch.randn(experts, d, 16) * 0.1)
        self.w2 = nn.Parameter(torch.randn(experts, 16, d) * 0.1)

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        probs = self.gate(flat).softmax(-1)
        score, chosen = probs.topk(2, dim=0)
        out = torch.zeros_like(flat)
        for e in range(self.w1.size(0)):
            token = chosen[:, e]
            h = F.gelu(flat[token] @ self.w1[e]) @ self.w2[e]
            out.index_add_(0, token, h * score[:, e].unsqueeze(-1))
        return out.view_as(x)


@written((6,), (3,))
class HyperNetwork(nn.Module):
    def __init__(self, i=6, o=4, z=3):
        super().__init__()
        self.w = nn.Linear(z, i * o)
        self.b = nn.Linear(z, o)
        self.z = nn.Parameter(torch.randn(2, z))
        self.i, self.o = i, o

    def forward(self, x, z):
        w = self.w(z).view(-1, self.o, self.i)
        x = torch.einsum("boi,bi->bo", w, x) + self.b(z)
        static = [self.w(code).view(self.o, self.i) for code in self.z]
        return F.linear(F.linear(x, static[0].t()), static[1])


class LoRALinear(nn.Module):
    def __init__(self, base: nn.Linear, r=2, alpha=4):
        super().__init__()
        self.base = base
        for p in self.base.parameters():
            p.requires_grad_(False)
        self.lora_A = nn.Parameter(torch.zeros(r, base.in_features))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, r))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scaling, self.dropout = alpha / r, nn.Dropout(0.05)

    @property
    def weight(self):
        return self.base.weight + self.lora_B @ self.lora_A * self.scaling

    def forward(self, x):
        return self.base(x) + (self.dropout(x) @ self.lora_A.T @ self.lora_B.T) * self.scaling


@written((5, 8))
class LoRATransformer(nn.Module):
    def __init__(self, d=8):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"attn": SelfAttention(d, 2), "mlp": SwiGLU(d)}) for _ in range(2)
        )
        for name, module in list(self.named_modules()):
            if isinstance(module, nn.Linear) and ("qkv" in name or "w3" in name):
                parent, _, child = name.rpartition(".")
                setattr(self.get_submodule(parent), child, LoRALinear(module))

    def forward(self, x):
        for block in self.blocks:
            x = x + block["attn"](x)
            x = x + block["mlp"](x)
        return x


class SelfAttention(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.qkv, self.proj, self.n_head = nn.Linear(d, 3 * d), nn.Linear(d, d), heads
        self.register_buffer("bias", torch.tril(torch.ones(64, 64)).view(1, 1, 64, 64))

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.qkv(x).split(C, dim=2)
        k, q, v = (t.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for t in (k, q, v))
        att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        att = att.masked_fill(self.bias[:, :, :T, :T] == 0, float("-inf"))
        y = F.softmax(att, dim=-1) @ v
        return self.proj(y.transpose(1, 2).contiguous().view(B, T, C))


class SwiGLU(nn.Module):
    def __init__(self, d, multiple_of=4):
        super().__init__()
        h = multiple_of * ((int(8 * d / 3) + multiple_of - 1) // multiple_of)
        self.w1, self.w2, self.w3 = nn.Linear(d, h), nn.Linear(d, h), nn.Linear(h, d)

    def forward(self, x):
        return self.w3(F.silu(self.w1(x)) * self.w2(x))


@written(ids(32, 6), ids(32, 6))
class NanoGPT(nn.Module):
    """Logits and a loss if there are targets."""

    def __init__(self, vocab=32, block=16, n=2, d=8):
        super().__init__()
        self.transformer = nn.ModuleDict(
            dict(  # noqa: C408
                wte=nn.Embedding(vocab, d),
                wpe=nn.Embedding(block, d),
                drop=nn.Dropout(0.1),
                h=nn.ModuleList([GPTBlock(d) for _ in range(n)]),
                ln_f=nn.LayerNorm(d),
            )
        )
        self.lm_head, self.block = nn.Linear(d, vocab, bias=False), block
        self.transformer.wte.weight = self.lm_head.weight
        self.apply(self._init)
        for pn, p in self.named_parameters():
            if pn.endswith("proj.weight"):
                nn.init.normal_(p, mean=0.0, std=0.02 / math.sqrt(2 * n))

    def _init(self, m):
        if isinstance(m, (nn.Linear, nn.Embedding)):
            nn.init.normal_(m.weight, mean=0.0, std=0.02)

    def forward(self, idx, targets=None):
        _, t = idx.size()
        assert t <= self.block, f"cannot forward {t}, block size is only {self.block}"
        pos = torch.arange(0, t, dtype=torch.long, device=idx.device)
        x = self.transformer.drop(self.transformer.wte(idx) + self.transformer.wpe(pos))
        for block in self.transformer.h:
            x = block(x)
        x = self.transformer.ln_f(x)
        if targets is not None:
            logits = self.lm_head(x)
            loss = F.cross_entropy(
                logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=-1
            )
        else:
            logits, loss = self.lm_head(x[:, [-1], :]), None
        return logits, loss


class GPTBlock(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attn, self.mlp = SelfAttention(d, 2), SwiGLU(d)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class KANLinear(nn.Module):
    def __init__(self, i, o, grid_size=4, order=3, act=nn.SiLU, grid_range=(-1, 1)):
        super().__init__()
        self.i, self.o, self.order = i, o, order
        h = (grid_range[1] - grid_range[0]) / grid_size
        grid = torch.arange(-order, grid_size + order + 1) * h + grid_range[0]
        self.register_buffer("grid", grid.expand(i, -1).contiguous())
        self.base_weight = nn.Parameter(torch.randn(o, i) * 0.3)
        self.spline_weight = nn.Parameter(torch.randn(o, i, grid_size + order) * 0.1)
        self.spline_scaler, self.base_activation = nn.Parameter(torch.ones(o, i)), act()

    def b_splines(self, x):
        assert x.dim() == 2 and x.size(1) == self.i
        grid = self.grid
        x = x.unsqueeze(-1)
        bases = ((x >= grid[:, :-1]) & (x < grid[:, 1:])).to(x.dtype)
        for k in range(1, self.order + 1):
            bases = (
                (x - grid[:, : -(k + 1)]) / (grid[:, k:-1] - grid[:, : -(k + 1)]) * bases[:, :, :-1]
            ) + ((grid[:, k + 1 :] - x) / (grid[:, k + 1 :] - grid[:, 1:(-k)]) * bases[:, :, 1:])
        return bases.contiguous()

    @property
    def scaled_spline_weight(self):
        return self.spline_weight * self.spline_scaler.unsqueeze(-1)

    def forward(self, x):
        shape = x.shape
        x = x.reshape(-1, self.i)
        base = F.linear(self.base_activation(x), self.base_weight)
        spline = F.linear(
            self.b_splines(x).view(x.size(0), -1), self.scaled_spline_weight.view(self.o, -1)
        )
        return (base + spline).reshape(*shape[:-1], self.o)


@written((2, 3))
class KAN(nn.Module):
    def __init__(self, layers=(3, 5, 2), **kwargs):
        super().__init__()
        self.layers = nn.ModuleList()
        for i, o in zip(layers, layers[1:], strict=False):
            self.layers.append(KANLinear(i, o, **kwargs))

    def forward(self, x: torch.Tensor, update_grid=False):
        for layer in self.layers:
            if update_grid:
                layer.update_grid(x)
            x = layer(x)
        return x


def fake_quant(w, bits=4):
    qmax = 2 ** (bits - 1) - 1
    scale = w.detach().abs().amax(dim=1, keepdim=True).clamp(min=1e-5) / qmax
    q = torch.clamp(torch.round(w / scale), -qmax - 1, qmax) * scale
    return w + (q - w).detach()


class BitLinear(nn.Linear):
    def __init__(self, *kargs, weight_bits=1, **kwargs):
        super().__init__(*kargs, **kwargs)
        self.weight_bits, self.norm = weight_bits, nn.LayerNorm(self.in_features)

    def forward(self, input):  # noqa: A002
        input = self.norm(input)  # noqa: A001
        scale = 127.0 / input.abs().max(dim=-1, keepdim=True).values.clamp_(min=1e-5)
        x = input + ((input * scale).round().clamp_(-128, 127) / scale - input).detach()
        w = self.weight
        m = w.mean()
        quant = (w - m).sign() * w.abs().mean()
        return F.linear(x, w + (quant - w).detach(), self.bias)


@written((8,))
class FakeQuant(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 16), BitLinear(16, 4, weight_bits=1)
        self.register_buffer("running_max", torch.zeros(1))
        self.act = partial(F.leaky_relu, negative_slope=0.1)

    def forward(self, x):
        h = self.act(F.linear(x, fake_quant(self.fc1.weight), self.fc1.bias))
        if self.training:
            self.running_max.mul_(0.9).add_(0.1 * h.detach().abs().max())
        return self.fc2(h)


@written((6,))
class DEQ(nn.Module):
    """A fixed point by so many steps without gradients, and one with them."""

    def __init__(self, d=6, iters=8):
        super().__init__()
        self.f, self.inject, self.iters = nn.Linear(d, d), nn.Linear(d, d), iters
        self.norm = nn.LayerNorm(d)

    def cell(self, z, x):
        return self.norm(torch.tanh(self.f(z) + self.inject(x)))

    def forward(self, x):
        z = torch.zeros_like(x)
        with torch.no_grad():
            for _ in range(self.iters):
                z = self.cell(z, x)
        return self.cell(z, x)


class ODEFunc(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(d + 1, 16), nn.Tanh(), nn.Linear(16, d))
        self.nfe = 0

    def forward(self, t, y):
        self.nfe += 1
        tt = torch.ones_like(y[:, :1]) * t
        return self.net(torch.cat([tt, y], 1))


def rk4(func, y, ts):
    ys = [y]
    for t0, t1 in zip(ts[:-1], ts[1:], strict=True):
        dt = t1 - t0
        k1 = func(t0, y)
        k2 = func(t0 + dt / 2, y + dt * k1 / 2)
        k3 = func(t0 + dt / 2, y + dt * k2 / 2)
        k4 = func(t1, y + dt * k3)
        y = y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        ys.append(y)
    return torch.stack(ys)


@written((3,))
class NeuralODE(nn.Module):
    def __init__(self, d=3, steps=4):
        super().__init__()
        self.odefunc = ODEFunc(d)
        self.register_buffer("ts", torch.linspace(0, 1, steps + 1))
        self.head = nn.Linear(d, 2)

    def forward(self, x):
        return self.head(rk4(self.odefunc, x, self.ts))


@written((6,))
class NeuralODEFloats(nn.Module):
    def __init__(self, d=6, n=5):
        super().__init__()
        self.f, self.n = ODEFunc(d), n

    def forward(self, x):
        t, h = 0.0, 1.0 / self.n
        for _ in range(self.n):
            x = x + h * self.f(t, x)
            t += h
        return x


@written((4, 4))
class ComplexLinear(nn.Module):
    def __init__(self, i=4, o=3):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(o, i, dtype=torch.cfloat) * 0.5)
        self.bias = nn.Parameter(torch.zeros(o, dtype=torch.cfloat))
        self.head = nn.Linear(2 * o, 2)

    def forward(self, x):
        z = torch.fft.fft(x, dim=-1, norm="ortho")
        z = F.linear(z, self.weight, self.bias)
        z = torch.complex(F.relu(z.real), F.relu(z.imag))
        return self.head(torch.view_as_real(z).flatten(-2))


@written((8, 8, 2))
class FNO(nn.Module):
    def __init__(self, width=4, modes=3):
        super().__init__()
        self.p, self.modes = nn.Linear(4, width), modes
        scale = 1 / (width * width)
        for i in range(2):
            for j in (1, 2):
                w = scale * torch.rand(width, width, modes, modes, dtype=torch.cfloat)
                setattr(self, f"w{i}_{j}", nn.Parameter(w))
        self.ws = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(2))
        self.q = nn.Conv2d(width, 1, 1)

    def get_grid(self, shape, device):
        b, nx, ny = shape[0], shape[1], shape[2]
        gx = torch.linspace(0, 1, nx).reshape(1, nx, 1, 1).repeat([b, 1, ny, 1])
        gy = torch.linspace(0, 1, ny).reshape(1, 1, ny, 1).repeat([b, nx, 1, 1])
        return torch.cat((gx, gy), dim=-1).to(device)

    def spectral(self, i, x):
        m = self.modes
        x_ft = torch.fft.rfft2(x)
        out = torch.zeros(*x_ft.shape, dtype=torch.cfloat, device=x.device)
        low, high = getattr(self, f"w{i}_1"), getattr(self, f"w{i}_2")
        out[:, :, :m, :m] = torch.einsum("bixy,ioxy->boxy", x_ft[:, :, :m, :m], low)
        out[:, :, -m:, :m] = torch.einsum("bixy,ioxy->boxy", x_ft[:, :, -m:, :m], high)
        return torch.fft.irfft2(out, s=(x.size(-2), x.size(-1)))

    def forward(self, x):
        x = torch.cat((x, self.get_grid(x.shape, x.device)), dim=-1)
        x = self.p(x).permute(0, 3, 1, 2)
        for i, w in enumerate(self.ws):
            x = F.gelu(self.spectral(i, x) + w(x))
        return self.q(x).permute(0, 2, 3, 1)
