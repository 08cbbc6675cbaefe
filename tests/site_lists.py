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


def dense_count(sites):
    return sum(site.size for site in sites if site.trainable)
