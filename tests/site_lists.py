"""Site lists by hand, with the shapes and initialisers of well-known networks."""

import math
from dataclasses import replace

from planner.ir import Initial, Site


def weight(name, shape, std, *, depth=0, role=None, repeat=0, owner="Linear", dtype="float32"):
    family = "normal" if std else "constant"
    initial = Initial(family, 0.0, std)
    return Site(name, (), owner, "weight", shape, dtype, initial, role or name, repeat, depth)


def vector(name, size, *, value=0.0, depth=0, owner="Linear"):
    site = weight(name, (size,), 0.0, depth=depth, owner=owner)
    return replace(site, parameter="bias", initial=Initial("constant", value, 0.0), kept="a bias")


def convolution(name, outputs, inputs, kernel, **where):
    std = 1 / math.sqrt(3 * inputs * kernel**2)
    return weight(name, (outputs, inputs, kernel, kernel), std, owner="Conv2d", **where)


def wide_resnet(widths=(160, 320, 640), blocks=4):
    """WRN-28-10: 29 weights in 11 classes."""
    sites, channels, depth = [convolution("conv1", 16, 3, 3)], 16, 1
    for stage, width in enumerate(widths):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            where = {"depth": depth, "repeat": block}
            sites += [
                vector(f"{name}.bn1", channels, depth=depth, owner="BatchNorm2d"),
                convolution(f"{name}.conv1", width, channels, 3, role="Block.conv1", **where),
                vector(f"{name}.bn2", width, depth=depth, owner="BatchNorm2d"),
                convolution(f"{name}.conv2", width, width, 3, role="Block.conv2", **where),
            ]
            if channels != width:
                sites.append(convolution(f"{name}.short", width, channels, 1, depth=depth))
            channels, depth = width, depth + 2
    return [*sites, weight("fc", (10, channels), 1 / math.sqrt(3 * channels), depth=depth)]


def bert(blocks=24, width=1024, words=30522, embedding_std=0.02):
    """BERT-Large: 145 linears in 3 classes, and embeddings."""
    sites = [
        weight("words", (words, width), embedding_std, owner="Embedding"),
        weight("positions", (512, width), embedding_std, owner="Embedding"),
    ]
    for block in range(blocks):
        where = {"depth": 4 * block + 1, "repeat": block}
        sites += [
            weight(f"{block}.{part}", (width, width), 0.02, role=f"Layer.{part}", **where)
            for part in ("query", "key", "value", "output")
        ]
        sites.append(weight(f"{block}.up", (4 * width, width), 0.02, role="Layer.up", **where))
        sites.append(weight(f"{block}.down", (width, 4 * width), 0.02, role="Layer.down", **where))
        sites += [vector(f"{block}.norm{index}", width) for index in range(10)]
    return sites


def dense_net(stages=(6, 12, 24, 16), growth=32):
    """DenseNet-121, made worse: nearly every convolution has a shape of its own."""
    sites, channels, depth = [convolution("stem", 64, 3, 7)], 64, 1
    for stage, layers in enumerate(stages):
        for layer in range(layers):
            name, where = f"{stage}.{layer}", {"depth": depth, "repeat": layer}
            sites += [
                vector(f"{name}.norm", channels, depth=depth, owner="BatchNorm2d"),
                convolution(f"{name}.conv1", 128 + stage, channels, 1, role="Dense.1", **where),
                convolution(
                    f"{name}.conv2", growth, 97 + layer + stage, 3, role="Dense.2", **where
                ),
            ]
            channels, depth = channels + growth, depth + 2
        if stage + 1 < len(stages):
            sites.append(convolution(f"transition{stage}", channels // 2, channels, 1, depth=depth))
            channels //= 2
    return [*sites, weight("fc", (1000, channels), 1 / math.sqrt(3 * channels), depth=depth)]


def dense_net_bc(stages, growth=32):
    """DenseNet-121 with (6, 12, 24, 16), DenseNet-201 with (6, 12, 48, 32): shapes as published."""
    sites, channels, depth = [convolution("stem", 64, 3, 7)], 64, 1
    for stage, layers in enumerate(stages):
        for layer in range(layers):
            name, where = f"{stage}.{layer}", {"depth": depth, "repeat": layer}
            sites += [
                vector(f"{name}.norm", channels, depth=depth, owner="BatchNorm2d"),
                convolution(f"{name}.conv1", 4 * growth, channels, 1, role="Dense.1", **where),
                convolution(f"{name}.conv2", growth, 4 * growth, 3, role="Dense.2", **where),
            ]
            channels, depth = channels + growth, depth + 2
        if stage + 1 < len(stages):
            sites.append(convolution(f"transition{stage}", channels // 2, channels, 1, depth=depth))
            channels //= 2
    return [*sites, weight("fc", (1000, channels), 1 / math.sqrt(3 * channels), depth=depth)]


def gpt(blocks=96, width=12288, words=50257):
    """GPT-3 175B: fused attention projections, embeddings tied to the head."""
    sites = [
        weight("words", (words, width), 0.02, owner="Embedding"),
        weight("positions", (2048, width), 0.02, owner="Embedding"),
    ]
    for block in range(blocks):
        where = {"depth": 4 * block + 1, "repeat": block}
        for part, shape in (
            ("attention", (3 * width, width)),
            ("output", (width, width)),
            ("up", (4 * width, width)),
            ("down", (width, 4 * width)),
        ):
            std = 0.02 / math.sqrt(2 * blocks) if part in {"output", "down"} else 0.02
            sites.append(weight(f"{block}.{part}", shape, std, role=f"Block.{part}", **where))
        sites += [vector(f"{block}.norm{index}", width) for index in range(4)]
    return sites


def llama(blocks=126, width=16384, hidden=53248, words=128256, keys=1024):
    """Llama-3.1 405B: grouped queries, a gated feed-forward layer, a head of its own."""
    sites = [weight("words", (words, width), 0.02, owner="Embedding")]
    for block in range(blocks):
        where = {"depth": 6 * block + 1, "repeat": block}
        sites += [
            weight(f"{block}.{part}", shape, 0.02, role=f"Layer.{part}", **where)
            for part, shape in (
                ("query", (width, width)),
                ("key", (keys, width)),
                ("value", (keys, width)),
                ("output", (width, width)),
                ("gate", (hidden, width)),
                ("up", (hidden, width)),
                ("down", (width, hidden)),
            )
        ]
        sites += [vector(f"{block}.norm{index}", width, value=1.0) for index in range(2)]
    return [*sites, weight("head", (words, width), 0.02, depth=6 * blocks)]


def residual(blocks=1000):
    """A residual network of bottleneck blocks in four stages."""
    sites, channels, depth = [convolution("stem", 64, 3, 7)], 64, 1
    for stage, width in enumerate((64, 128, 256, 512)):
        for block in range(blocks // 4):
            name, where = f"{stage}.{block}", {"depth": depth, "repeat": block}
            sites += [
                convolution(f"{name}.conv1", width, channels, 1, role="Block.conv1", **where),
                convolution(f"{name}.conv2", width, width, 3, role="Block.conv2", **where),
                convolution(f"{name}.conv3", 4 * width, width, 1, role="Block.conv3", **where),
                vector(f"{name}.bn", 4 * width, depth=depth, owner="BatchNorm2d"),
            ]
            if channels != 4 * width:
                sites.append(convolution(f"{name}.short", 4 * width, channels, 1, depth=depth))
            channels, depth = 4 * width, depth + 3
    return [*sites, weight("fc", (1000, channels), 1 / math.sqrt(3 * channels), depth=depth)]


def efficient_net(width=2.0, depth=3.1):
    """EfficientNet-B7: expansion, depthwise, squeeze and projection of every block."""

    def scaled(channels):
        rounded = max(8, int(channels * width + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * channels * width else rounded

    channels, level = scaled(32), 1
    sites = [convolution("stem", channels, 3, 3)]
    for stage, (expand, kernel, out, layers) in enumerate(
        (
            (1, 3, 16, 1),
            (6, 3, 24, 2),
            (6, 5, 40, 2),
            (6, 3, 80, 3),
            (6, 5, 112, 3),
            (6, 5, 192, 4),
            (6, 3, 320, 1),
        )
    ):
        for block in range(math.ceil(layers * depth)):
            name, where = f"{stage}.{block}", {"depth": level, "repeat": block}
            inner, squeezed = channels * expand, max(1, channels // 4)
            if expand > 1:
                sites.append(convolution(f"{name}.expand", inner, channels, 1, **where))
            sites += [
                convolution(f"{name}.depthwise", inner, 1, kernel, **where),
                convolution(f"{name}.squeeze", squeezed, inner, 1, **where),
                convolution(f"{name}.excite", inner, squeezed, 1, **where),
                convolution(f"{name}.project", scaled(out), inner, 1, **where),
                vector(f"{name}.bn", inner, depth=level, owner="BatchNorm2d"),
            ]
            channels, level = scaled(out), level + 4
    sites.append(convolution("top", 4 * channels, channels, 1, depth=level))
    return [*sites, weight("fc", (1000, 4 * channels), 0.02, depth=level)]


def dense_count(sites):
    return sum(site.size for site in sites if site.trainable)
