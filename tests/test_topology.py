"""The graph of layers: who feeds whom, how deep a layer lies, where it stands."""

import networkx as nx
import torch
from torch import nn

import hard_models
import hard_states
from planner.ir import Container, Definition, Graph, Input, Instance, Leaf, Operation, Program, Ref
from planner.topology import layer_graph, layers, places
from planner.tracing import trace
from round_trips import tensors

LAYER = Leaf("Linear", (4, 4))
LAYERS = tuple((name, LAYER) for name in "abcd")


def op(result, target, *args, kind="module", **kwargs):
    return Operation(result, kind, target, tuple(map(Ref, args)), tuple(kwargs.items()))


def program(*operations, children=LAYERS, output, inputs=("x",), before=()):
    definition = Definition(
        "Model",
        "Module",
        children=tuple((name, LAYER) for name in children)
        if isinstance(children, str)
        else children,
        inputs=tuple(map(Input, inputs)),
        train=Graph(operations, Ref(output)),
    )
    return Program((*before, definition), Instance("Model"), (None,) * len(inputs), ())


def measured(found):
    return {layer.path: (layer.depth, layer.uses) for layer in layers(found)}


def edges(found):
    return {(source[0], target[0]) for source, target in layer_graph(found).edges}


def test_a_residual_connection_passes_by():
    found = program(
        op("a", "a", "x"),
        op("b", "b", "a"),
        op("c", "c", "b"),
        op("sum", "operator.add", "c", "a", kind="function"),
        op("d", "d", "sum"),
        output="d",
    )
    assert measured(found) == {"a": (0, 1), "b": (1, 1), "c": (2, 1), "d": (3, 1)}
    assert edges(found) == {("a", "b"), ("b", "c"), ("c", "d"), ("a", "d")}
    assert nx.is_directed_acyclic_graph(layer_graph(found))


def test_depth_is_the_longest_path():
    found = program(
        op("a", "a", "x"),
        op("b", "b", "x"),
        op("c", "c", "b"),
        op("sum", "operator.add", "a", "c", kind="function"),
        op("d", "d", "sum"),
        output="d",
    )
    assert measured(found)["d"] == (2, 1)


def test_a_layer_that_is_called_twice_is_two_nodes():
    found = program(op("a", "a", "x"), op("b", "b", "a"), op("c", "a", "b"), output="c")
    assert measured(found) == {"a": (0, 2), "b": (1, 1)}
    assert set(layer_graph(found)) == {("a", 0), ("b", 0), ("a", 1)}


def test_a_layer_that_is_not_called_is_no_node():
    assert set(measured(program(op("a", "a", "x"), output="a"))) == {"a"}


def test_arguments_of_a_block_are_told_apart():
    """The block reads one argument early and one late, given by name in another order."""
    block = Definition(
        "Block",
        "Module",
        children=(("early", LAYER), ("late", LAYER)),
        inputs=(Input("x"), Input("late_input")),
        train=Graph(
            (op("e", "early", "x"), op("l", "late", "late_input")),
            (Ref("e"), Ref("l")),
        ),
    )
    children = (("a", LAYER), ("b", LAYER), ("block", Instance("Block")))
    calls = [
        op("out", "block", late_input=Ref("b"), x=Ref("x")),
        Operation("out", "module", "block", (Ref("x"), Ref("b"))),
        Operation("out", "module", "block", (Ref("x"),), (("late_input", (Ref("b"), 1)),)),
    ]
    for call in calls:
        found = program(
            op("a", "a", "x"),
            op("b", "b", "a"),
            call,
            children=children,
            output="out",
            before=(block,),
        )
        depths = {path: depth for path, (depth, _) in measured(found).items()}
        assert depths == {"a": 0, "b": 1, "block.early": 0, "block.late": 2}


def test_each_parameter_that_a_block_reads_counts_by_itself():
    found = trace(hard_models.CASES["bare_parameters"][0](), tensors([(2, 4)], 2))
    names = ("frozen", "gain", "projection", "scalar")
    assert measured(found) == dict.fromkeys(names, (0, 1))


def test_a_parameter_that_is_read_from_a_layer_counts_as_a_use():
    found = trace(hard_states.ReadFromChild(), tensors([(2, 4)], 2))
    uses = {path: uses for path, (_, uses) in measured(found).items()}
    assert uses == {"fc.weight": 1, "deep.0.fc.bias": 1, "attention.out_proj.weight": 1}


def test_shared_modules_stand_once_and_count_their_calls():
    found = trace(hard_models.TwoNames(), tensors([(2, 4)], 2))
    assert measured(found) == {"first.fc": (0, 2), "layers.0": (1, 1), "layers.1": (3, 1)}


def test_lists_and_sequences():
    found = trace(hard_models.NestedLists(), tensors([(2, 4)], 2))
    depths = {path: depth for path, (depth, _) in measured(found).items()}
    expected = {f"stages.{i}.{j}": 2 * i + j for i in range(3) for j in range(2)}
    assert depths == {**expected, "by_name.up": 6, "by_name.0": 7}


def test_slices_of_a_sequence_are_their_layers():
    found = trace(hard_models.SliceOfSequential(), tensors([(2, 4)], 2))
    assert {path: uses for path, (_, uses) in measured(found).items()} == {
        f"layers.{index}": 1 for index in range(4)
    }


def test_layers_of_a_chain_lie_one_below_the_other():
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(5)))
    found = layers(trace(model, [torch.randn(2, 4)]))
    assert [(layer.path, layer.depth) for layer in found] == [(str(i), i) for i in range(5)]


def test_places_say_which_block_creates_a_module():
    found = places(trace(hard_models.CASES["with_mask"][0](), tensors([(2, 4)], 2)))
    assert [(p.path, p.type, p.definition, p.local, p.block) for p in found] == [
        ("", "Caller", "", "", True),
        ("first", "Masked", "Caller", "first", True),
        ("first.fc", "Linear", "Masked", "fc", False),
        ("second", "Masked2", "Caller", "second", True),
        ("second.fc", "Linear", "Masked2", "fc", False),
    ]


def test_places_pass_through_containers():
    root = Container("Sequential", (("0", LAYER), ("1", Container("ModuleList", (("0", LAYER),)))))
    found = places(Program((), root, (), ()))
    assert [(place.path, place.local) for place in found] == [("0", "0"), ("1.0", "1.0")]
