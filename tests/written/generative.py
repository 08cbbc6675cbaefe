"""Generators, autoencoders, flows and diffusion."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from written import ids, written


@written((28,))
class VAE(nn.Module):
    def __init__(self, d=28, h=16, z=4):
        super().__init__()
        self.fc1, self.fc21, self.fc22 = nn.Linear(d, h), nn.Linear(h, z), nn.Linear(h, z)
        self.fc3, self.fc4 = nn.Linear(z, h), nn.Linear(h, d)

    def encode(self, x):
        h1 = F.relu(self.fc1(x))
        return self.fc21(h1), self.fc22(h1)

    def reparameterize(self, mu, logvar):
        if self.training:
            std = torch.exp(0.5 * logvar)
            eps = torch.randn_like(std)
            return mu + eps * std
        return mu

    def decode(self, z):
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z))))

    def forward(self, x):
        mu, logvar = self.encode(x.view(-1, 28))
        z = self.reparameterize(mu, logvar)
        kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
        return {"recon": self.decode(z), "mu": mu, "logvar": logvar, "kl": kl}


@written((1, 8, 8))
class VAEDistributions(nn.Module):
    """The same with torch.distributions."""

    def __init__(self, z=4):
        super().__init__()
        self.enc = nn.Sequential(nn.Conv2d(1, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Flatten())
        self.to_stats = nn.Linear(128, 2 * z)
        self.dec = nn.Sequential(
            nn.Linear(z, 128), nn.Unflatten(1, (8, 4, 4)), nn.ConvTranspose2d(8, 1, 4, 2, 1)
        )

    def forward(self, x):
        mu, log_std = self.to_stats(self.enc(x)).chunk(2, dim=-1)
        q = torch.distributions.Normal(mu, log_std.clamp(-5, 2).exp())
        z = q.rsample()
        p = torch.distributions.Normal(torch.zeros_like(mu), torch.ones_like(mu))
        return self.dec(z), torch.distributions.kl_divergence(q, p).sum(-1)


@written((16,))
class TiedAutoencoder(nn.Module):
    """The decoder reads the encoder's weights, transposed."""

    def __init__(self, sizes=(16, 12, 4)):
        super().__init__()
        self.weights = nn.ParameterList(
            [
                nn.Parameter(torch.randn(o, i) * i**-0.5)
                for i, o in zip(sizes, sizes[1:], strict=False)
            ]
        )
        self.enc_b = nn.ParameterList([torch.zeros(o) for o in sizes[1:]])
        self.dec_b = nn.ParameterDict({str(i): torch.zeros(s) for i, s in enumerate(sizes[:-1])})

    def forward(self, x):
        for w, b in zip(self.weights, self.enc_b, strict=True):
            x = torch.tanh(F.linear(x, w, b))
        code = x
        for i in reversed(range(len(self.weights))):
            x = F.linear(x, self.weights[i].t(), self.dec_b[str(i)])
            if i:
                x = torch.tanh(x)
        return x, code


class EqualLinear(nn.Module):
    def __init__(self, i, o, bias_init=0.0, lr_mul=0.01):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(o, i).div_(lr_mul))
        self.bias = nn.Parameter(torch.zeros(o).fill_(bias_init))
        self.scale, self.lr_mul = (1 / math.sqrt(i)) * lr_mul, lr_mul

    def forward(self, x):
        out = F.linear(x, self.weight * self.scale, bias=self.bias * self.lr_mul)
        return F.leaky_relu(out, 0.2) * 2**0.5


class ModulatedConv2d(nn.Module):
    def __init__(self, i, o, k, style, demodulate=True, upsample=False):
        super().__init__()
        self.eps, self.o, self.k, self.upsample = 1e-8, o, k, upsample
        self.scale, self.padding = 1 / math.sqrt(i * k**2), k // 2
        self.weight = nn.Parameter(torch.randn(1, o, i, k, k))
        self.modulation = EqualLinear(style, i, bias_init=1.0, lr_mul=1.0)
        self.demodulate = demodulate

    def forward(self, x, style):
        batch, in_channel, height, width = x.shape
        style = self.modulation(style).view(batch, 1, in_channel, 1, 1)
        weight = self.scale * self.weight * style
        if self.demodulate:
            demod = torch.rsqrt(weight.pow(2).sum([2, 3, 4]) + self.eps)
            weight = weight * demod.view(batch, self.o, 1, 1, 1)
        if self.upsample:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            height, width = height * 2, width * 2
        weight = weight.view(batch * self.o, in_channel, self.k, self.k)
        x = x.reshape(1, batch * in_channel, height, width)
        out = F.conv2d(x, weight, padding=self.padding, groups=batch)
        return out.view(batch, self.o, height, width)


class StyledConv(nn.Module):
    def __init__(self, i, o, style, upsample=False):
        super().__init__()
        self.conv = ModulatedConv2d(i, o, 3, style, upsample=upsample)
        self.noise_weight = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(1, o, 1, 1))

    def forward(self, x, style, noise=None):
        out = self.conv(x, style)
        if noise is None:
            batch, _, height, width = out.shape
            noise = out.new_empty(batch, 1, height, width).normal_()
        return F.leaky_relu(out + self.noise_weight * noise + self.bias, 0.2)


@written((8,), name="StyleGAN", randomize=False)
@written((8,), name="StyleGANRandom", randomize=True)
class StyleGAN(nn.Module):
    def __init__(self, style=8, randomize=False):
        super().__init__()
        layers = [EqualLinear(style, style) for _ in range(3)]
        self.style = nn.Sequential(*layers)
        self.input = nn.Parameter(torch.randn(1, 8, 4, 4))
        self.conv1, self.noises = StyledConv(8, 8, style), nn.Module()
        self.convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        for i in range(2):
            self.noises.register_buffer(f"noise_{i}", torch.randn(1, 1, 2 ** (i + 2), 2 ** (i + 2)))
            self.convs.append(StyledConv(8, 8, style, upsample=i > 0))
            self.to_rgbs.append(ModulatedConv2d(8, 3, 1, style, demodulate=False))
        self.randomize = randomize

    def forward(self, z):
        z = z * torch.rsqrt(torch.mean(z**2, dim=1, keepdim=True) + 1e-8)
        latent = self.style(z).unsqueeze(1).repeat(1, 4, 1)
        if self.randomize:
            noise = [None] * 2
        else:
            noise = [getattr(self.noises, f"noise_{i}") for i in range(2)]
        out = self.input.repeat(latent.shape[0], 1, 1, 1)
        out = self.conv1(out, latent[:, 0], noise=noise[0])
        skip = None
        for i, (conv, rgb) in enumerate(zip(self.convs, self.to_rgbs, strict=True)):
            out = conv(out, latent[:, i], noise=noise[i])
            y = rgb(out, latent[:, i + 1])
            if skip is not None:
                y = y + F.interpolate(skip, scale_factor=2)
            skip = y
        return skip


class InvConv2dLU(nn.Module):
    def __init__(self, c):
        super().__init__()
        q, _ = torch.linalg.qr(torch.randn(c, c))
        w_p, w_l, w_u = torch.linalg.lu(q)
        w_s = torch.diag(w_u)
        self.register_buffer("w_p", w_p)
        self.register_buffer("u_mask", torch.triu(torch.ones(c, c), 1))
        self.register_buffer("l_mask", self.u_mask.T.contiguous())
        self.register_buffer("s_sign", torch.sign(w_s))
        self.register_buffer("l_eye", torch.eye(c))
        self.w_l, self.w_s = nn.Parameter(w_l), nn.Parameter(torch.log(torch.abs(w_s)))
        self.w_u = nn.Parameter(torch.triu(w_u, 1))

    def forward(self, x):
        _, _, height, width = x.shape
        weight = self.calc_weight()
        return F.conv2d(x, weight), height * width * torch.sum(self.w_s)

    def calc_weight(self):
        weight = (
            self.w_p
            @ (self.w_l * self.l_mask + self.l_eye)
            @ ((self.w_u * self.u_mask) + torch.diag(self.s_sign * torch.exp(self.w_s)))
        )
        return weight.unsqueeze(2).unsqueeze(3)


class Coupling(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(c // 2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, c, 1))

    def forward(self, x):
        a, b = x.chunk(2, 1)
        log_s, t = self.net(a).chunk(2, 1)
        s = torch.sigmoid(log_s + 2)
        return torch.cat([a, (b + t) * s], 1), torch.sum(torch.log(s).view(x.shape[0], -1), 1)


class Flow(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.loc, self.scale = (
            nn.Parameter(torch.zeros(1, c, 1, 1)),
            nn.Parameter(torch.ones(1, c, 1, 1)),
        )
        self.invconv, self.coupling = InvConv2dLU(c), Coupling(c)

    def forward(self, x):
        out = self.scale * (x + self.loc)
        logdet = x.shape[2] * x.shape[3] * torch.sum(torch.log(torch.abs(self.scale)))
        out, det1 = self.invconv(out)
        out, det2 = self.coupling(out)
        return out, logdet + det1 + det2


@written((1, 8, 8))
class Glow(nn.Module):
    def __init__(self, flows=2, blocks=2):
        super().__init__()
        self.blocks, c = nn.ModuleList(), 1
        for i in range(blocks):
            self.blocks.append(nn.ModuleList([Flow(c * 4) for _ in range(flows)]))
            c *= 2 if i < blocks - 1 else 4

    def forward(self, x):
        log_p_sum, logdet, z_outs = 0, 0, []
        for i, block in enumerate(self.blocks):
            b, c, h, w = x.shape
            x = x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4)
            x = x.contiguous().view(b, c * 4, h // 2, w // 2)
            for flow in block:
                x, det = flow(x)
                logdet = logdet + det
            if i < len(self.blocks) - 1:
                x, z = x.chunk(2, 1)
            else:
                z = x
            z_outs.append(z)
            log_p_sum = log_p_sum + (-0.5 * (math.log(2 * math.pi) + z**2)).view(b, -1).sum(1)
        return log_p_sum, logdet, z_outs


class TimeEmbedding(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, time):
        device, half = time.device, self.dim // 2
        embeddings = math.log(10000) / (half - 1)
        embeddings = torch.exp(torch.arange(half, device=device) * -embeddings)
        embeddings = time[:, None] * embeddings[None, :]
        return torch.cat((embeddings.sin(), embeddings.cos()), dim=-1)


@written((3, 8, 8), ids(100))
class DDPM(nn.Module):
    """Noise is drawn within, and the loss returned."""

    def __init__(self, T=100, c=8):
        super().__init__()
        betas = torch.linspace(1e-4, 0.02, T)
        alphas_bar = torch.cumprod(1.0 - betas, dim=0)
        self.register_buffer("sqrt_ab", torch.sqrt(alphas_bar))
        self.register_buffer("sqrt_1mab", torch.sqrt(1.0 - alphas_bar))
        self.time = nn.Sequential(TimeEmbedding(c), nn.Linear(c, c), nn.SiLU())
        self.inp, self.out = nn.Conv2d(3, c, 3, padding=1), nn.Conv2d(c, 3, 3, padding=1)
        self.mid, self.norm = nn.Conv2d(c, c, 3, padding=1), nn.GroupNorm(2, c)

    def eps(self, x, t):
        h = self.inp(x) + self.time(t)[(...,) + (None,) * 2]
        return self.out(self.mid(F.silu(self.norm(h))) + h)

    def forward(self, x0, t):
        noise = torch.randn_like(x0)
        a, s = (v.gather(-1, t).reshape(-1, 1, 1, 1) for v in (self.sqrt_ab, self.sqrt_1mab))
        return F.mse_loss(self.eps(a * x0 + s * noise, t), noise)


@written((8, 4))
class VQVAE(nn.Module):
    def __init__(self, K=12, D=4, beta=0.25):
        super().__init__()
        self.enc, self.dec = nn.Linear(4, D), nn.Linear(D, 4)
        self.embedding = nn.Embedding(K, D)
        self.embedding.weight.data.uniform_(-1 / K, 1 / K)
        self.beta = beta

    def forward(self, x):
        z = self.enc(x)
        flat = z.view(-1, z.size(-1))
        d = (
            torch.sum(flat**2, dim=1, keepdim=True)
            + torch.sum(self.embedding.weight**2, dim=1)
            - 2 * torch.matmul(flat, self.embedding.weight.t())
        )
        idx = torch.argmin(d, dim=1)
        one_hot = torch.zeros(idx.unsqueeze(1).shape[0], 12, device=z.device)
        one_hot.scatter_(1, idx.unsqueeze(1), 1)
        z_q = torch.matmul(one_hot, self.embedding.weight).view(z.shape)
        loss = F.mse_loss(z_q, z.detach()) + self.beta * torch.mean((z_q.detach() - z) ** 2)
        z_q = z + (z_q - z).detach()
        perplexity = torch.exp(-(one_hot.mean(0) * torch.log(one_hot.mean(0) + 1e-10)).sum())
        return self.dec(z_q), loss, perplexity, idx.view(z.shape[:-1])


@written((8,), ids(4))
class ConditionalGenerator(nn.Module):
    """Conditional batch norm, by an embedding of classes."""

    def __init__(self, nz=8, classes=4, ngf=4):
        super().__init__()
        self.fc, self.ngf = nn.Linear(nz, ngf * 16), ngf
        self.bn = nn.BatchNorm2d(ngf, affine=False)
        self.embed = nn.Embedding(classes, ngf * 2)
        self.embed.weight.data[:, :ngf].normal_(1, 0.02)
        self.embed.weight.data[:, ngf:].zero_()
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2), nn.Conv2d(ngf, 3, 3, padding=1), nn.Tanh()
        )

    def forward(self, z, y):
        x = self.fc(z).view(-1, self.ngf, 4, 4)
        gamma, beta = self.embed(y).chunk(2, 1)
        x = gamma.view(-1, self.ngf, 1, 1) * self.bn(x) + beta.view(-1, self.ngf, 1, 1)
        return self.up(F.relu(x))
