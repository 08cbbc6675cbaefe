"""Equal structure becomes one class; what varies becomes its arguments."""

import pytest
import torch
from torch import nn

import hard_models
from planner.ir import Graph, Input, Instance, Leaf, Operation, Parameter, Ref, Shared, Slot, Switch
from planner.tracing import trace
from planner.tracing.folding import Block, BlockContainer, fold
from round_trips import assert_equal_outputs, emitted


def parameter_names(leaf_type):
    return {"Linear": ("in_features", "out_features", "bias"), "Dropout": ("p",)}.get(leaf_type, ())


def block(name, *, children=(), numbers=(), parameters=(), train=None):
    operations = tuple(
        Operation(f"v{i}", "function", "operator.mul", (Ref("x"), number))
        for i, number in enumerate(numbers)
    )
    graph = train or Graph(operations, Ref("x"))
    return Block(name, "Module", children, parameters, (), (Input("x"),), graph, None)


def root_of(*blocks):
    children = tuple((str(index), one) for index, one in enumerate(blocks))
    return block("Root", children=(("layers", BlockContainer("ModuleList", children)),))


def folded(*blocks):
    """(definitions but the root's, the instances in order)."""
    definitions, root = fold(root_of(*blocks), parameter_names)
    assert root == Instance("Root")
    assert definitions[-1].name == "Root"
    ((_, container),) = definitions[-1].children
    return definitions[:-1], [child for _, child in container.children]


def linear(rows, columns, **kwargs):
    return Leaf("Linear", (rows, columns), tuple(kwargs.items()))


def test_equal_blocks_are_one_definition_without_arguments():
    (definition,), instances = folded(*(block("B", children=(("fc", linear(4, 4)),)),) * 3)
    assert definition.arguments == ()
    assert instances == [Instance("B")] * 3


def test_numbers_that_vary_are_arguments_named_after_what_they_are():
    blocks = [block("B", children=(("fc", linear(4, width)),)) for width in (8, 16)]
    (definition,), instances = folded(*blocks)
    assert definition.arguments == ("out_features",)
    assert definition.children == (("fc", Leaf("Linear", (4, Slot("out_features")))),)
    assert instances == [Instance("B", (("out_features", width),)) for width in (8, 16)]


def test_columns_that_agree_are_one_argument():
    blocks = [
        block("B", children=(("a", linear(w, 2 * w)), ("b", linear(2 * w, w)))) for w in (3, 5)
    ]
    (definition,), instances = folded(*blocks)
    assert [len(instance.arguments) for instance in instances] == [2, 2]
    first, second = (child.args for _, child in definition.children)
    assert first == tuple(reversed(second))


def test_arguments_of_one_name_are_told_apart_by_their_owners():
    blocks = [
        block("B", children=(("a", linear(1, one)), ("b", linear(1, other))))
        for one, other in ((2, 3), (4, 6))
    ]
    (definition,), _ = folded(*blocks)
    assert definition.arguments == ("a_out_features", "b_out_features")


def test_numbers_that_switch_with_the_mode_are_arguments():
    def dropping(train, evaluation):
        rate = Switch(train, evaluation)
        drop = Operation("y", "function", "torch.dropout", (Ref("x"),), (("p", rate),))
        return block("B", train=Graph((drop,), Ref("y")))

    (definition,), instances = folded(dropping(0.5, 0.1), dropping(0.4, 0.1), dropping(0.3, 0.1))
    (argument,) = definition.arguments
    rate = dict(definition.train.operations[0].kwargs)["p"]
    assert rate == Switch(Slot(argument), 0.1)
    assert [dict(one.arguments)[argument] for one in instances] == [0.5, 0.4, 0.3]


def test_other_structure_is_another_definition():
    blocks = [
        block("B", children=(("fc", linear(4, 4)),)),
        block("B", children=(("fc", linear(4, 4, bias=False)),)),
        block("B", children=(("other", linear(4, 4)),)),
        block("C", children=(("fc", linear(4, 4)),)),
        block("B", children=(("fc", linear(4, 4)),), numbers=(2,)),
    ]
    definitions, instances = folded(*blocks)
    assert [one.name for one in definitions] == ["B", "B2", "B3", "C", "B4"]
    assert [one.definition for one in instances] == ["B", "B2", "B3", "C", "B4"]


def test_a_second_name_is_never_another_classes_own():
    blocks = [block("B", numbers=(True,)), block("B"), block("B2"), block("B", numbers=(1, 2))]
    assert [one.name for one in folded(*blocks)[0]] == ["B", "B2", "B22", "B3"]


def test_flags_are_structure_and_numbers_are_not():
    assert len(folded(block("B", numbers=(True,)), block("B", numbers=(False,)))[0]) == 2
    assert len(folded(block("B", numbers=(1,)), block("B", numbers=(2.5,)))[0]) == 1


def test_numbers_of_a_forward_become_attributes():
    (definition,), instances = folded(block("B", numbers=(2, 5)), block("B", numbers=(3, 5)))
    assert [one.args[1] for one in definition.train.operations] == [Slot("mul"), 5]
    assert [dict(one.arguments) for one in instances] == [{"mul": 2}, {"mul": 3}]


def test_one_and_one_point_zero_differ():
    (definition,), instances = folded(block("B", numbers=(1,)), block("B", numbers=(1.0,)))
    assert [type(dict(one.arguments)["mul"]) for one in instances] == [int, float]
    assert definition.arguments == ("mul",)
    (definition,), instances = folded(block("B", numbers=(1, 1.0)), block("B", numbers=(2, 2.0)))
    found = [[value for _, value in one.arguments] for one in instances]
    assert repr(found) == "[[1, 1.0], [2, 2.0]]"


def test_arguments_never_hide_attributes_or_inputs():
    blocks = [
        block(
            "B",
            children=(("mul", linear(1, 1)), ("p", Leaf("Dropout", (), (("p", rate),)))),
            numbers=(number,),
        )
        for number, rate in ((2, 0.1), (3, 0.2))
    ]
    (definition,), _ = folded(*blocks)
    assert len(set(definition.arguments)) == 2
    assert not {"mul", "p", "x", "self"} & set(definition.arguments)


def test_shapes_of_parameters_fold():
    blocks = [block("B", parameters=(Parameter("gain", (size,)),)) for size in (3, 4)]
    (definition,), instances = folded(*blocks)
    (argument,) = definition.arguments
    assert definition.parameters[0].shape == Slot(argument)
    assert [dict(one.arguments)[argument] for one in instances] == [(3,), (4,)]


def test_arguments_pass_through_the_levels():
    blocks = [
        block("Outer", children=(("inner", block("B", children=(("fc", linear(w, w)),))),))
        for w in (3, 4)
    ]
    (inner, outer), instances = folded(*blocks)
    assert inner.arguments == outer.arguments == ("in_features",)
    assert outer.children[0][1] == Instance("B", (("in_features", Slot("in_features")),))
    assert [dict(one.arguments) for one in instances] == [{"in_features": 3}, {"in_features": 4}]


def test_definitions_stand_before_their_users():
    program = trace(nn.Sequential(hard_models.DenseBlock()), [torch.randn(2, 4)])
    seen = set()
    for definition in program.definitions:
        used = {child.definition for _, child in definition.children if isinstance(child, Instance)}
        assert used <= seen
        seen.add(definition.name)


def test_shared_modules_are_structure():
    one = block("B", children=(("a", linear(1, 1)), ("b", Shared("a"))))
    other = block("B", children=(("a", linear(1, 1)), ("b", linear(1, 1))))
    assert len(folded(one, other)[0]) == 2


class Scaled(nn.Module):
    def __init__(self, width, scale, rate, shape):
        super().__init__()
        self.fc, self.drop = nn.Linear(4, width), nn.Dropout(rate)
        self.back, self.scale, self.shape = nn.Linear(width, 4), scale, shape
        self.gain = nn.Parameter(torch.rand(shape))

    def forward(self, x):
        x = self.back(self.drop(self.fc(x))) * self.scale
        return x + self.gain.reshape(self.shape[::-1]).sum() * (x.shape[0] + len(self.shape))


@pytest.mark.parametrize("repeat", [1, 2])
def test_folded_classes_compute_the_same(repeat):
    settings = [(3, 2.0, 0.1, (2, 3)), (5, 3, 0.2, (3, 2)), (3, 0.5, 0.0, (1, 1))] * repeat
    model = nn.Sequential(*(Scaled(*one) for one in settings))
    source, built = emitted(model, [torch.randn(2, 4)])
    assert source.count("class Scaled") == 1
    assert "self.scale = " in source or "self.mul = " in source
    assert "p: float" in source
    assert_equal_outputs(model, built, [(2, 4)])
