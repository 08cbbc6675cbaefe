"""The models that other tests plan are the ones that their papers describe."""

from pathlib import Path

import pytest
import torch

import planner
from planner.loading import load_model
from zoo import (
    densenet_bc,
    grounding,
    lstm_lm,
    mlp,
    perceiver,
    retrieval,
    transformer_lm,
    wide_resnet,
)

ZOO = Path(__file__).parent / "zoo"


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("depth", "widen_factor", "published"), [(28, 10, 36_479_194), (16, 4, 2_748_890)]
)
def test_wide_resnet_has_the_published_size(depth, widen_factor, published):
    with torch.device("meta"):
        model = wide_resnet.wide_resnet(depth=depth, widen_factor=widen_factor)
    assert count(model) == published


@pytest.mark.parametrize("factory", [wide_resnet.wide_resnet, densenet_bc.densenet_bc])
def test_a_depth_that_has_no_whole_blocks_is_refused(factory):
    with pytest.raises(ValueError, match="6n"):
        factory(depth=17)


@pytest.mark.parametrize(
    ("depth", "growth", "published"), [(100, 12, 0.8), (250, 24, 15.3), (190, 40, 25.6)]
)
def test_densenet_bc_has_the_published_size(depth, growth, published):
    with torch.device("meta"):
        model = densenet_bc.densenet_bc(depth=depth, growth=growth)
    assert round(count(model) / 1e6, 1) == published


@pytest.mark.parametrize(("shared", "published"), [(True, 44.9), (False, 326.2)])
def test_perceiver_has_the_published_size(shared, published):
    with torch.device("meta"):
        model = perceiver.perceiver(
            image_size=224,
            bands=64,
            latents=512,
            width=1024,
            repeats=8,
            depth=6,
            heads=8,
            num_classes=1000,
            shared=shared,
        )
    assert round(count(model) / 1e6, 1) == published


@pytest.mark.parametrize(
    ("name", "parameters"), [("bert_large_qa", 334_094_338), ("albert_large", 16_636_418)]
)
def test_large_models_are_built_without_memory(name, parameters):
    loaded = load_model(f"hf:{ZOO / name}.json")
    assert count(loaded.model) == parameters
    assert all(parameter.is_meta for parameter in loaded.model.parameters())


@pytest.mark.parametrize(
    ("factory", "module", "shape"),
    [
        (wide_resnet.wide_resnet, wide_resnet, (2, 10)),
        (transformer_lm.transformer_lm, transformer_lm, (2, 64, 1000)),
        (lstm_lm.lstm_lm, lstm_lm, (2, 32, 1000)),
        (mlp.mlp, mlp, (2, 10)),
        (densenet_bc.densenet_bc, densenet_bc, (2, 10)),
        (grounding.grounding, grounding, (2, 10)),
        (perceiver.perceiver, perceiver, (2, 10)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_example_inputs_run(factory, module, shape):
    output = factory()(*module.example_inputs())
    assert output.shape == shape
    assert output.std() > 0


def test_transformer_embeddings_are_tied():
    model = transformer_lm.transformer_lm()
    assert model.head.weight is model.tokens.weight
    assert count(model) == 1000 * 256 + 64 * 256 + 4 * 789_760 + 2 * 256


def test_transformer_does_not_see_the_future():
    model = transformer_lm.transformer_lm(depth=2).eval()
    ids = torch.randint(1000, (1, 16))
    changed = ids.clone()
    changed[0, 9] = (changed[0, 9] + 1) % 1000
    difference = (model(ids) - model(changed)).abs().amax(dim=-1)[0]
    assert difference[:9].max() == 0
    assert difference[9:].min() > 0


def test_retrieval_embeds_images_and_sentences_on_one_sphere():
    model = retrieval.retrieval()
    image, text = model(*retrieval.example_inputs())
    assert image.shape == text.shape == (2, 512)
    torch.testing.assert_close(image.norm(dim=-1), torch.ones(2))
    torch.testing.assert_close(text.norm(dim=-1), torch.ones(2))
    assert (text[0] - text[1]).abs().max() > 0.01


def test_retrieval_does_not_read_padding():
    model = retrieval.retrieval().eval()
    image, ids = retrieval.example_inputs()
    padded = torch.cat([ids, torch.zeros(2, 3, dtype=torch.int64)], 1)
    torch.testing.assert_close(model(image, ids)[1], model(image, padded)[1])


def test_grounding_scores_each_region_by_itself():
    model = grounding.grounding()
    regions, boxes, ids = grounding.example_inputs()
    order = torch.randperm(10)
    scores = model(regions, boxes, ids)
    moved = model(regions[:, order], boxes[:, order], ids)
    torch.testing.assert_close(scores[:, order], moved)
    assert (scores - model(regions, boxes, ids + 20)).abs().max() > 1e-5


def test_perceiver_knows_where_pixels_are():
    model = perceiver.perceiver().eval()
    (image,) = perceiver.example_inputs()
    assert (model(image) - model(image.flip(-1))).abs().max() > 1e-4


def test_perceiver_shares_all_but_the_first_cross_attention():
    model = perceiver.perceiver(repeats=4)
    assert len({id(module) for module in model.crosses}) == 2
    assert model.crosses[0] is not model.crosses[1]
    assert len({id(module) for module in model.transformers}) == 1
    apart = perceiver.perceiver(repeats=4, shared=False)
    assert len({id(module) for module in (*apart.crosses, *apart.transformers)}) == 8


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("densenet_bc", {"depth": 10}),
        ("retrieval", {"vocabulary": 100, "state": 64, "hidden": 64, "embedding": 32}),
        ("grounding", {"vocabulary": 100, "state": 64, "hidden": 64, "embedding": 32}),
        ("perceiver", {}),
        ("perceiver", {"shared": False}),
    ],
)
def test_models_are_planned_and_emitted(name, arguments):
    plan = planner.plan(f"{ZOO / name}.py:{name}", "50%", arguments=arguments)
    assert plan.parameter_count <= plan.budget_parameters
    compile(planner.emit(plan), name, "exec")
