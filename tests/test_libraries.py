"""Models of torchvision and timm come with inputs that they run on."""

import pytest
import torch
from torchvision import models

from planner.errors import ModelSourceError
from planner.loading import load_model

torch.set_num_threads(1)


def shapes(example):
    return [tuple(tensor.shape) for tensor in example.leaves()]


# What the example of a builder should be, where it is not one batch of 224 x 224 images.
SHAPES = {
    "inception_v3": [(2, 3, 299, 299)],
    "swin_v2_t": [(2, 3, 256, 256)],
    "efficientnet_b7": [(2, 3, 320, 320)],
    "vit_h_14": [(2, 3, 224, 224)],
    "fcn_resnet50": [(2, 3, 224, 224)],
    "r3d_18": [(2, 3, 16, 112, 112)],
    "mvit_v2_s": [(2, 3, 16, 224, 224)],
    "raft_small": [(2, 3, 128, 128)] * 2,
    "ssdlite320_mobilenet_v3_large": [(3, 224, 224)] * 2,
}


@pytest.mark.parametrize("name", SHAPES)
def test_inputs_are_what_published_weights_are_for(name):
    assert shapes(load_model(f"torchvision:{name}").example) == SHAPES[name]


@pytest.mark.parametrize(
    "name",
    [
        "shufflenet_v2_x0_5",
        "inception_v3",
        "lraspp_mobilenet_v3_large",
        "raft_small",
        "ssdlite320_mobilenet_v3_large",
        "quantized_mobilenet_v2",
    ],
)
def test_models_of_torchvision_run_on_their_inputs(name):
    loaded = load_model(f"torchvision:{name}")
    assert not loaded.example.kwargs
    plain = models.get_model(name, weights=None, **backbone(name)).eval()
    with torch.no_grad():
        plain(*loaded.example.args)


def backbone(name):
    """Keyword arguments that keep the weights of a backbone from being downloaded."""
    return {"weights_backbone": None} if name.startswith(("lraspp", "ssdlite")) else {}


def test_the_two_images_of_a_flow_differ():
    first, second = load_model("torchvision:raft_small").example.args
    assert not torch.equal(first, second)


def test_the_size_of_a_vision_transformer_is_its_own():
    example = load_model("torchvision:vit_b_32", {"image_size": 64}).example
    assert shapes(example) == [(2, 3, 64, 64)]


@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("resnet18", {}, (2, 3, 224, 224)),
        ("test_vit", {}, (2, 3, 160, 160)),
        ("inception_v3", {}, (2, 3, 299, 299)),
        ("vit_tiny_patch16_224", {"img_size": 96, "in_chans": 1}, (2, 1, 96, 96)),
        ("vit_tiny_patch16_224", {"img_size": [96, 64]}, (2, 3, 96, 64)),
    ],
)
def test_models_of_timm_run_on_their_inputs(name, arguments, shape):
    import timm

    loaded = load_model(f"timm:{name}", arguments)
    assert shapes(loaded.example) == [shape]
    with torch.no_grad():
        timm.create_model(name, **arguments).eval()(*loaded.example.args)


def test_names_that_timm_lacks_are_suggested():
    with pytest.raises(ModelSourceError, match=r"did you mean .*resnet18"):
        load_model("timm:resnet18x")
