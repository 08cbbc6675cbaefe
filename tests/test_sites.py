"""Every parameter tensor is one site, with its role, its uses and the reason why it is kept."""

import pytest
import torch
from torch import nn

import hard_models
import hard_operations
import hard_states  # noqa: F401  its models join the table
from planner.errors import UnsupportedSiteError
from planner.initializers import initials
from planner.ir import Container, Leaf, Program
from planner.sites import VECTOR_LIMIT, dense_parameters, find_sites
from planner.tracing import trace
from round_trips import tensors


def sites_of(model, inputs=None):
    inputs = tensors([(2, 4)], 2) if inputs is None else inputs
    return find_sites(model, trace(model, inputs), initials(model))


def by_name(model, inputs=None):
    return {site.name: site for site in sites_of(model, inputs)}


@pytest.mark.parametrize("name", list(hard_models.CASES))
def test_every_tensor_is_one_site(name):
    factory, shapes = hard_models.CASES[name]
    model = factory()
    sites = sites_of(model, tensors(shapes, 2))
    parameters = dict(model.named_parameters(remove_duplicate=False))
    names = [one for site in sites for one in (site.name, *site.aliases)]
    assert sorted(names) == sorted(parameters)
    assert [site.name for site in sites] == [name for name, _ in model.named_parameters()]
    for site in sites:
        assert all(parameters[alias] is parameters[site.name] for alias in site.aliases)
        assert site.shape == tuple(parameters[site.name].shape)
        assert site.parameter == site.name.rpartition(".")[2]
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert dense_parameters(sites) == trainable


def test_roles_and_repeats():
    sites = by_name(nn.Sequential(*(hard_models.Masked() for _ in range(3))))
    for index in range(3):
        site = sites[f"{index}.fc.weight"]
        assert (site.role, site.repeat, site.depth) == ("Masked.fc.weight", index, index)
        assert site.owner == "Linear"


def test_roles_of_other_blocks_differ():
    sites = by_name(hard_models.Caller(masked=True))
    assert sites["first.fc.weight"].role == "Masked.fc.weight"
    assert sites["second.fc.weight"].role == "Masked2.fc.weight"
    assert sites["second.fc.weight"].repeat == 0


def test_layers_in_lists_have_a_role_each():
    sites = by_name(hard_operations.Loops())
    assert sites["layers.1.weight"].role == "Loops.layers.1.weight"


def test_bare_parameters_belong_to_their_block():
    sites = by_name(hard_models.CASES["bare_parameters"][0]())
    assert sites["projection"].owner == "Bare"
    assert sites["projection"].role == "Bare.projection"
    assert sites["projection"].kept is None
    assert sites["scalar"].kept == "vector"
    assert sites["frozen"].kept == "frozen: not trainable"


def test_kept_tensors_say_why():
    class Kinds(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv1d(4, 4, 3, padding=1), nn.BatchNorm1d(4)
            self.unused, self.long = nn.Linear(4, 4), nn.Parameter(torch.rand(VECTOR_LIMIT + 1))
            self.row, self.scale = nn.Linear(4, 1), nn.Parameter(torch.rand(4))

        def forward(self, x):
            x = self.norm(self.conv(x.unsqueeze(2))).squeeze(2)
            return self.row(x * self.scale) + self.long.sum()

    sites = by_name(Kinds())
    assert {name: site.kept for name, site in sites.items()} == {
        "long": None,
        "scale": "vector",
        "conv.weight": None,
        "conv.bias": "bias",
        "norm.weight": "normalisation",
        "norm.bias": "normalisation",
        "unused.weight": "not read by forward",
        "unused.bias": "not read by forward",
        "row.weight": "vector",
        "row.bias": "bias",
    }
    assert sites["unused.weight"].uses == 0


def test_tied_tensors_count_once():
    model = hard_models.TiedWeights()
    (site,) = sites_of(model, [torch.zeros(2, 5, dtype=torch.int64)])
    assert site.name == "embed.weight"
    assert site.aliases == ("head.weight",)
    assert site.uses == 2
    assert dense_parameters((site,)) == 7 * 4


def test_uses_count_calls():
    assert by_name(hard_models.CalledTwice())["head.fc.weight"].uses == 2
    assert by_name(hard_models.SharedDeep())["left.layer.weight"].uses == 2
    assert by_name(hard_models.TwoNames())["first.fc.weight"].uses == 2


def test_frozen_tensors_do_not_count():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[0].requires_grad_(False)
    sites = sites_of(model)
    assert dense_parameters(sites) == 20
    assert [site.trainable for site in sites] == [False, False, True, True]


def test_tensors_inside_a_layer_of_torch():
    inputs = tensors([(2, 6, 8)], 2)
    sites = by_name(hard_operations.Attention(), inputs)
    projection = sites["attention.out_proj.weight"]
    assert projection.role == "Attention.attention.out_proj.weight"
    assert projection.uses == 2
    inner = sites["layer.linear1.weight"]
    assert inner.owner == "Linear" and inner.kept is None


def test_other_dtypes():
    model = nn.Sequential(nn.Linear(4, 4).bfloat16())
    sites = sites_of(model, [torch.randn(2, 4, dtype=torch.bfloat16)])
    assert [site.dtype for site in sites] == ["bfloat16", "bfloat16"]
    assert sites[0].kept is None


def test_a_tensor_outside_the_program_is_refused():
    model = nn.Sequential(nn.Linear(4, 4))
    other = Program((), Container("Sequential", (("1", Leaf("Linear", (4, 4))),)), (), ())
    with pytest.raises(UnsupportedSiteError, match="does not contain") as caught:
        find_sites(model, other, initials(model))
    assert caught.value.site == "0.weight"
