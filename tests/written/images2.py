"""More models of images: mixers, capsules, detectors and comparisons."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from written import written
from written.images import ConvBNReLU


class MlpBlock(nn.Module):
    def __init__(self, dim, hidden, **kwargs):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.drop = nn.Dropout(kwargs.get("dropout", 0.0))

    def forward(self, x):
        return self.fc2(self.drop(F.gelu(self.fc1(x))))


class MixerBlock(nn.Module):
    def __init__(self, tokens, dim, **kwargs):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.token, self.channel = MlpBlock(tokens, 16, **kwargs), MlpBlock(dim, 32, **kwargs)

    def forward(self, x):
        y = self.norm1(x).transpose(1, 2)
        x = x + self.token(y).transpose(1, 2)
        return x + self.channel(self.norm2(x))


@written((3, 16, 16))
class Mixer(nn.Module):
    def __init__(self, dim=16, depth=2, patch=4, **kwargs):
        super().__init__()
        self.stem = nn.Conv2d(3, dim, patch, patch)
        self.blocks = nn.Sequential(*[MixerBlock(16, dim, dropout=0.1) for _ in range(depth)])
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 5))

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        return self.head(self.blocks(x).mean(dim=1))


def squash(x, dim=-1):
    n = (x**2).sum(dim=dim, keepdim=True)
    return n / (1 + n) * x / (n.sqrt() + 1e-8)


class DigitCaps(nn.Module):
    def __init__(self, caps=3, routes=32, i=4, o=6, iters=3):
        super().__init__()
        self.W = nn.Parameter(0.01 * torch.randn(1, caps, routes, o, i))
        self.caps, self.iters = caps, iters

    def forward(self, x):
        batch = x.size(0)
        x = x.unsqueeze(1).unsqueeze(4)
        u_hat = torch.matmul(self.W, x).squeeze(-1)
        temp = u_hat.detach()
        b = torch.zeros(batch, self.caps, x.size(2), 1).to(x.device)
        for _ in range(self.iters - 1):
            c = b.softmax(dim=1)
            v = squash((c * temp).sum(dim=2))
            b += torch.matmul(temp, v.unsqueeze(-1))
        c = b.softmax(dim=1)
        return squash((c * u_hat).sum(dim=2))


@written((1, 14, 14))
class CapsNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 5)
        self.primary = nn.ModuleList([nn.Conv2d(8, 8, 7, 2) for _ in range(4)])
        self.digit = DigitCaps(routes=8 * 4)
        self.decoder = nn.Sequential(nn.Linear(18, 32), nn.ReLU(True), nn.Linear(32, 196))

    def forward(self, x):
        x = F.relu(self.conv(x))
        u = [p(x) for p in self.primary]
        u = torch.stack(u, dim=1)
        u = u.mean(-1).view(x.size(0), 32, -1)
        u = F.pad(u, (0, 4 - u.shape[-1])) if u.shape[-1] < 4 else u[..., :4]
        v = self.digit(squash(u))
        length = (v**2).sum(-1).sqrt()
        mask = torch.eye(3, device=x.device).index_select(0, length.max(dim=1)[1])
        recon = self.decoder((v * mask[:, :, None]).reshape(x.size(0), -1))
        return length, torch.sigmoid(recon).view(-1, 1, 14, 14)


class Encoder(nn.Module):
    def __init__(self, dim=8):
        super().__init__()
        self.features = nn.Sequential(
            ConvBNReLU(3, 8, 3, 2, 1), ConvBNReLU(8, 16, 3, 2, 1), nn.AdaptiveAvgPool2d((1, 1))
        )
        self.proj = nn.Linear(16, dim)

    def forward_once(self, x):
        return self.proj(self.features(x).flatten(1))

    def forward(self, *inputs):
        return tuple(self.forward_once(x) for x in inputs)


@written((3, 8, 8), (3, 8, 8))
class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, a, b):
        za, zb = self.encoder(a, b)
        return F.pairwise_distance(za, zb) * self.scale.exp(), za @ zb.t()


@written((3, 8, 8), (3, 8, 8), (3, 8, 8))
class Triplet(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Encoder()

    def forward(self, anchor, positive, negative):
        a, p, n = map(self.net.forward_once, (anchor, positive, negative))
        return F.triplet_margin_loss(a, p, n), {"anchor": a, "pos": p, "neg": n}


@written((3, 8, 8), (3, 8, 8))
class BYOL(nn.Module):
    """A target network that gets no gradients."""

    def __init__(self):
        super().__init__()
        self.online, self.target = Encoder(), Encoder()
        self.target.load_state_dict(self.online.state_dict())
        for p in self.target.parameters():
            p.requires_grad = False
        self.predictor = nn.Sequential(
            nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8)
        )

    @staticmethod
    def loss_fn(x, y):
        x, y = F.normalize(x, dim=-1, p=2), F.normalize(y, dim=-1, p=2)
        return 2 - 2 * (x * y).sum(dim=-1)

    def forward(self, v1, v2):
        q1, q2 = (self.predictor(self.online.forward_once(v)) for v in (v1, v2))
        with torch.no_grad():
            k1, k2 = self.target(v1, v2)
        return (self.loss_fn(q1, k2.detach()) + self.loss_fn(q2, k1.detach())).mean()


@written((3, 32, 32))
class FPN(nn.Module):
    """Returns a dict by level, from a dict of features."""

    def __init__(self, channels=(8, 16, 32), out=8):
        super().__init__()
        self.body = nn.ModuleDict()
        c = 3
        for i, o in enumerate(channels):
            self.body[f"layer{i}"] = ConvBNReLU(c, o, 3, 2, 1)
            c = o
        self.return_layers = {f"layer{i}": str(i) for i in range(len(channels))}
        self.lateral = nn.ModuleList([nn.Conv2d(c, out, 1) for c in channels])
        self.smooth = nn.ModuleList([nn.Conv2d(out, out, 3, padding=1) for _ in channels])
        self.head = nn.Conv2d(out, 5, 3, padding=1)

    def forward(self, x):
        feats = {}
        for name, module in self.body.items():
            x = module(x)
            if name in self.return_layers:
                feats[self.return_layers[name]] = x
        names, xs = list(feats.keys()), list(feats.values())
        last = self.lateral[-1](xs[-1])
        results = [self.smooth[-1](last)]
        for i in range(len(xs) - 2, -1, -1):
            top_down = F.interpolate(last, size=xs[i].shape[-2:], mode="nearest")
            last = self.lateral[i](xs[i]) + top_down
            results.insert(0, self.smooth[i](last))
        return {k: self.head(v) for k, v in zip(names, results, strict=True)}


@written((3, 16, 16))
class YoloHead(nn.Module):
    def __init__(self, nc=3, anchors=((1.0, 2.0), (2.0, 1.0))):
        super().__init__()
        self.nc, self.no, self.na = nc, nc + 5, len(anchors)
        self.backbone = nn.ModuleList([ConvBNReLU(3, 8, 3, 2, 1), ConvBNReLU(8, 8, 3, 2, 1)])
        self.register_buffer("anchors", torch.tensor(anchors).float().view(1, -1, 1, 1, 2))
        self.m = nn.ModuleList(nn.Conv2d(8, self.no * self.na, 1) for _ in range(2))
        self.grid = [torch.zeros(1)] * 2
        self.stride = [2, 4]

    @staticmethod
    def _make_grid(nx=20, ny=20):
        yv, xv = torch.meshgrid([torch.arange(ny), torch.arange(nx)], indexing="ij")
        return torch.stack((xv, yv), 2).view((1, 1, ny, nx, 2)).float()

    def forward(self, x):
        feats, z = [], []
        for b in self.backbone:
            x = b(x)
            feats.append(x)
        for i, m in enumerate(self.m):
            feats[i] = m(feats[i])
            bs, _, ny, nx = feats[i].shape
            feats[i] = (
                feats[i].view(bs, self.na, self.no, ny, nx).permute(0, 1, 3, 4, 2).contiguous()
            )
            if not self.training:
                if self.grid[i].shape[2:4] != feats[i].shape[2:4]:
                    self.grid[i] = self._make_grid(nx, ny).to(x.device)
                y = feats[i].sigmoid()
                y[..., 0:2] = (y[..., 0:2] * 2.0 - 0.5 + self.grid[i]) * self.stride[i]
                y[..., 2:4] = (y[..., 2:4] * 2) ** 2 * self.anchors
                z.append(y.view(bs, -1, self.no))
        return feats if self.training else (torch.cat(z, 1), feats)


@written((3, 8, 8))
class NonLocal(nn.Module):
    """Attention over places, with a gain that starts at zero."""

    def __init__(self, c=8):
        super().__init__()
        self.stem = nn.Conv2d(3, c, 3, padding=1)
        self.q, self.k, self.v = (nn.Conv2d(c, c // r, 1) for r in (4, 4, 1))
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        x = self.stem(x)
        b, C, width, height = x.size()
        q = self.q(x).view(b, -1, width * height).permute(0, 2, 1)
        k = self.k(x).view(b, -1, width * height)
        attention = torch.softmax(torch.bmm(q, k), dim=-1)
        v = self.v(x).view(b, -1, width * height)
        out = torch.bmm(v, attention.permute(0, 2, 1)).view(b, C, width, height)
        return self.gamma * out + x, attention


@written((4, 3, 8, 8))
class RelationNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = ConvBNReLU(3, 8, 3, 2, 1)
        self.g = nn.Sequential(nn.Linear(2 * 10, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
        self.f = nn.Linear(16, 3)

    def cvt_coord(self, i, n):
        return [(i / n - n / 2) / (n / 2.0), (i % n - n / 2) / (n / 2.0)]

    def forward(self, frames):
        b, t = frames.shape[:2]
        x = self.conv(frames.reshape(b * t, *frames.shape[2:]))
        mb, c, d, _ = x.size()
        flat = x.view(mb, c, d * d).permute(0, 2, 1)
        coord = torch.tensor([self.cvt_coord(i, d) for i in range(d * d)], dtype=x.dtype)
        flat = torch.cat([flat, coord.to(x).unsqueeze(0).expand(mb, -1, -1)], 2)
        xi = flat.unsqueeze(1).repeat(1, d * d, 1, 1)
        xj = flat.unsqueeze(2).repeat(1, 1, d * d, 1)
        pairs = torch.cat([xi, xj], 3).view(mb * d**4, 20)
        g = self.g(pairs).view(mb, d**4, -1).sum(1)
        return self.f(g).view(b, t, -1).logsumexp(1)
