"""Models of images and of points in space."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from written import written


def conv_bn(inp, oup, stride, *args, act=nn.ReLU, **kwargs):
    return nn.Sequential(
        nn.Conv2d(inp, oup, 3, stride, 1, *args, bias=False, **kwargs),
        nn.BatchNorm2d(oup),
        act(inplace=True),
    )


class ConvBNReLU(nn.Sequential):
    def __init__(self, *args, norm=nn.BatchNorm2d, **kwargs):
        conv = nn.Conv2d(*args, **kwargs)
        super().__init__(conv, norm(conv.out_channels), nn.ReLU6(inplace=True))


@written((3, 16, 16))
class UNet(nn.Module):
    def __init__(self, in_channels=3, out_channels=2, features=(8, 16)):
        super().__init__()
        self.downs = nn.ModuleList()
        self.ups = nn.ModuleList()
        self.pool = nn.MaxPool2d(2, 2)
        for f in features:
            self.downs.append(self.double(in_channels, f))
            in_channels = f
        for f in reversed(features):
            self.ups.append(nn.ConvTranspose2d(f * 2, f, 2, 2))
            self.ups.append(self.double(f * 2, f))
        self.bottleneck = self.double(features[-1], features[-1] * 2)
        self.final_conv = nn.Conv2d(features[0], out_channels, kernel_size=1)

    @staticmethod
    def double(i, o):
        return nn.Sequential(ConvBNReLU(i, o, 3, padding=1), ConvBNReLU(o, o, 3, padding=1))

    def forward(self, x):
        skip_connections = []
        for down in self.downs:
            x = down(x)
            skip_connections.append(x)
            x = self.pool(x)
        x = self.bottleneck(x)
        skip_connections = skip_connections[::-1]
        for idx in range(0, len(self.ups), 2):
            x = self.ups[idx](x)
            skip = skip_connections[idx // 2]
            if x.shape != skip.shape:
                x = F.interpolate(x, size=skip.shape[2:])
            x = self.ups[idx + 1](torch.cat((skip, x), dim=1))
        return self.final_conv(x)


class SELayer(nn.Module):
    def __init__(self, channel, reduction=4):
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            nn.Linear(channel, channel // reduction, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(channel // reduction, channel, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x):
        b, c, _, _ = x.size()
        y = self.avg_pool(x).view(b, c)
        y = self.fc(y).view(b, c, 1, 1)
        return x * y.expand_as(x)


@written((3, 12, 12))
class SqueezeExcite(nn.Module):
    def __init__(self, planes=(8, 8, 16)):
        super().__init__()
        self.stem = conv_bn(3, planes[0], 2)
        self.blocks = nn.ModuleDict()
        for i, (a, b) in enumerate(zip(planes[:-1], planes[1:], strict=True)):
            self.blocks[f"conv{i}"] = conv_bn(a, b, 1, act=nn.Hardswish)
            self.blocks[f"se{i}"] = SELayer(b)
            if a != b:
                self.blocks[f"down{i}"] = nn.Conv2d(a, b, 1)
        self.n = len(planes) - 1
        self.fc = nn.Linear(planes[-1], 5)

    def forward(self, x):
        x = self.stem(x)
        for i in range(self.n):
            key = f"down{i}"
            identity = self.blocks[key](x) if key in self.blocks else x
            x = self.blocks[f"se{i}"](self.blocks[f"conv{i}"](x)) + identity
        return self.fc(x.mean([2, 3]))


@written((1, 28, 28))
class SpatialTransformer(nn.Module):
    """The tutorial's."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, kernel_size=5)
        self.conv2 = nn.Conv2d(10, 20, kernel_size=5)
        self.conv2_drop = nn.Dropout2d()
        self.fc1 = nn.Linear(320, 50)
        self.fc2 = nn.Linear(50, 10)
        self.localization = nn.Sequential(
            nn.Conv2d(1, 8, kernel_size=7),
            nn.MaxPool2d(2, stride=2),
            nn.ReLU(True),
            nn.Conv2d(8, 10, kernel_size=5),
            nn.MaxPool2d(2, stride=2),
            nn.ReLU(True),
        )
        self.fc_loc = nn.Sequential(nn.Linear(10 * 3 * 3, 32), nn.ReLU(True), nn.Linear(32, 3 * 2))
        self.fc_loc[2].weight.data.zero_()
        self.fc_loc[2].bias.data.copy_(torch.tensor([1, 0, 0, 0, 1, 0], dtype=torch.float))

    def stn(self, x):
        xs = self.localization(x)
        xs = xs.view(-1, 10 * 3 * 3)
        theta = self.fc_loc(xs)
        theta = theta.view(-1, 2, 3)
        grid = F.affine_grid(theta, x.size(), align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)

    def forward(self, x):
        x = self.stn(x)
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2_drop(self.conv2(x)), 2))
        x = x.view(-1, 320)
        x = F.relu(self.fc1(x))
        x = F.dropout(x, training=self.training)
        return F.log_softmax(self.fc2(x), dim=1)


@written((3, 9, 9))
class DeformableLike(nn.Module):
    def __init__(self, c=8, k=3):
        super().__init__()
        self.offset = nn.Conv2d(3, 2 * k, 3, padding=1)
        self.weight = nn.Parameter(torch.empty(c, 3, k))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.k = k

    def forward(self, x):
        n, c, h, w = x.shape
        off = self.offset(x).tanh().view(n, self.k, 2, h, w).permute(0, 1, 3, 4, 2)
        ys, xs = torch.meshgrid(
            torch.linspace(-1, 1, h, device=x.device),
            torch.linspace(-1, 1, w, device=x.device),
            indexing="ij",
        )
        grid = torch.stack((xs, ys), -1)[None, None] + off * 0.1
        out = 0
        for i in range(self.k):
            sampled = F.grid_sample(x, grid[:, i], align_corners=True, padding_mode="border")
            out = out + torch.einsum("nchw,oc->nohw", sampled, self.weight[:, :, i])
        return out


class TNet(nn.Module):
    def __init__(self, k=3):
        super().__init__()
        self.conv1 = nn.Conv1d(k, 16, 1)
        self.conv2 = nn.Conv1d(16, 32, 1)
        self.fc1 = nn.Linear(32, 16)
        self.fc2 = nn.Linear(16, k * k)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm1d(16), nn.BatchNorm1d(32), nn.BatchNorm1d(16)
        self.k = k

    def forward(self, x):
        batchsize = x.size()[0]
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = torch.max(x, 2, keepdim=True)[0]
        x = x.view(-1, 32)
        x = F.relu(self.bn3(self.fc1(x)))
        x = self.fc2(x)
        iden = torch.eye(self.k).view(1, self.k * self.k).repeat(batchsize, 1)
        if x.is_cuda:
            iden = iden.cuda()
        x = x + iden
        return x.view(-1, self.k, self.k)


@written((3, 20))
class PointNet(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.input_transform, self.feature_transform = TNet(3), TNet(16)
        self.conv1, self.conv2 = nn.Conv1d(3, 16, 1), nn.Conv1d(16, 32, 1)
        self.bn1, self.bn2 = nn.BatchNorm1d(16), nn.BatchNorm1d(32)
        self.fc = nn.Linear(32, classes)

    def forward(self, pts):
        m3 = self.input_transform(pts)
        x = torch.bmm(pts.transpose(2, 1), m3).transpose(2, 1)
        x = F.relu(self.bn1(self.conv1(x)))
        m64 = self.feature_transform(x)
        x = torch.bmm(x.transpose(2, 1), m64).transpose(2, 1)
        x = self.bn2(self.conv2(x)).max(dim=2)[0]
        eye = torch.eye(m64.size(1), device=m64.device)
        reg = torch.norm(torch.bmm(m64, m64.transpose(1, 2)) - eye, dim=(1, 2)).mean()
        return F.log_softmax(self.fc(x), -1), reg


@written((4, 3), (4, 3))
class NeRF(nn.Module):
    def __init__(self, D=4, W=32, multires=4, skips=(2,)):
        super().__init__()
        self.embed_fns, dim = [], 3
        for freq in 2.0 ** torch.linspace(0.0, multires - 1, steps=multires):
            for fn in (torch.sin, torch.cos):
                self.embed_fns.append(lambda x, fn=fn, freq=freq: fn(x * freq))
                dim += 3
        self.skips = skips
        self.pts_linears = nn.ModuleList(
            [nn.Linear(dim, W)]
            + [nn.Linear(W, W) if i not in skips else nn.Linear(W + dim, W) for i in range(D - 1)]
        )
        self.views_linears = nn.ModuleList([nn.Linear(W + dim, W // 2)])
        self.feature_linear, self.alpha_linear = nn.Linear(W, W), nn.Linear(W, 1)
        self.rgb_linear = nn.Linear(W // 2, 3)

    def embed(self, x):
        return torch.cat([x] + [fn(x) for fn in self.embed_fns], -1)

    def forward(self, pts, views):
        input_pts, input_views = self.embed(pts), self.embed(views)
        h = input_pts
        for i, _ in enumerate(self.pts_linears):
            h = self.pts_linears[i](h)
            h = F.relu(h)
            if i in self.skips:
                h = torch.cat([input_pts, h], -1)
        alpha = self.alpha_linear(h)
        h = torch.cat([self.feature_linear(h), input_views], -1)
        for layer in self.views_linears:
            h = F.relu(layer(h))
        return torch.cat([torch.sigmoid(self.rgb_linear(h)), alpha], -1)


class SineLayer(nn.Module):
    def __init__(self, i, o, is_first=False, omega_0=30.0):
        super().__init__()
        self.omega_0, self.is_first, self.in_features = omega_0, is_first, i
        self.linear = nn.Linear(i, o)
        with torch.no_grad():
            bound = 1 / i if is_first else math.sqrt(6 / i) / omega_0
            self.linear.weight.uniform_(-bound, bound)

    def forward(self, input):  # noqa: A002
        return torch.sin(self.omega_0 * self.linear(input))


@written((10, 2))
class Siren(nn.Module):
    def __init__(self, hidden=16, layers=2):
        super().__init__()
        self.net = [SineLayer(2, hidden, is_first=True)]
        for _ in range(layers):
            self.net.append(SineLayer(hidden, hidden))
        self.net.append(nn.Linear(hidden, 1))
        self.net = nn.Sequential(*self.net)

    def forward(self, coords):
        coords = coords.clone()
        return self.net(coords), coords
