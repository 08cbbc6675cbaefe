"""The allow-list: what a forward may do, and under which name."""

import math
import operator
import os

import pytest
import torch
import torch.nn.functional as F

import list_operations
from planner import operations


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (F.relu, "torch.nn.functional.relu"),
        (F.dropout, "torch.nn.functional.dropout"),
        (F.scaled_dot_product_attention, "torch.nn.functional.scaled_dot_product_attention"),
        (F.max_pool2d, "torch.nn.functional.max_pool2d"),
        (torch.cat, "torch.cat"),
        (torch.einsum, "torch.einsum"),
        (torch.fft.fft, "torch.fft.fft"),
        (torch.linalg.norm, "torch.linalg.norm"),
        (torch.arange, "torch.arange"),
        (operator.add, "operator.add"),
        (operator.setitem, "operator.setitem"),
        (operator.abs, "builtins.abs"),
        (abs, "builtins.abs"),
        (getattr, "builtins.getattr"),
        (math.sqrt, "math.sqrt"),
    ],
)
def test_public_names(function, name):
    assert operations.public_name(function) == name
    assert operations.is_function(name)


def test_every_name_stands_for_a_function_that_leads_back_to_it():
    for name, function in operations._names().items():
        found = operations.public_name(function)
        assert operations._names()[found] is function or name.startswith("torch."), name


def test_the_list_holds_what_torch_offers():
    listed = set(list_operations.FILE.read_text().split())
    assert {*list_operations.listed()} <= listed


@pytest.mark.parametrize("function", [eval, exec, open, os.system, torch.load, torch.save, print])
def test_other_functions_have_no_name(function):
    assert operations.public_name(function) is None


@pytest.mark.parametrize(
    "name",
    "builtins.eval builtins.exec builtins.open builtins.__import__ builtins.setattr os.system "
    "torch.load torch.save torch.hub.load torch.os.system torch.utils.cpp_extension.load "
    "torch._C._jit operator.attrgetter operator.methodcaller math.__loader__ torch.from_file relu "
    "torch.nn.functional.__builtins__ torch.nn.functional.boolean_dispatch".split(),
)
def test_dangerous_names_are_not_allowed(name):
    assert not operations.is_function(name)


@pytest.mark.parametrize("name", "view size mul_ __getitem__ masked_fill to chunk".split())
def test_methods(name):
    assert operations.is_method(name)


@pytest.mark.parametrize(
    "name",
    "__class__ __reduce__ __reduce_ex__ __getattribute__ __init__ _backward_hooks apply_ map_ "
    "numpy register_hook storage untyped_storage backward share_memory_ nothing".split(),
)
def test_dangerous_methods_are_not_allowed(name):
    assert not operations.is_method(name)


def test_attributes_are_plain():
    assert not [name for name in operations.ATTRIBUTES if name.startswith("_")]
    assert not {"data", "grad", "grad_fn"} & set(operations.ATTRIBUTES)


@pytest.mark.parametrize("name", ["Linear", "Conv2d", "LSTM", "MultiheadAttention", "ReLU"])
def test_layers(name):
    assert operations.is_layer(name)


@pytest.mark.parametrize(
    "name", ["Sequential", "Parameter", "init", "functional", "modules.Linear", "parallel", "x", ""]
)
def test_other_things_are_no_layers(name):
    assert not operations.is_layer(name)


@pytest.mark.parametrize(
    ("op", "target", "kwargs", "changes"),
    [
        ("method", "add_", (), True),
        ("method", "add", (), False),
        ("method", "__setitem__", (), True),
        ("method", "__getitem__", (), False),
        ("function", "operator.iadd", (), True),
        ("function", "operator.setitem", (), True),
        ("function", "operator.invert", (), False),
        ("function", "operator.is_", (), False),
        ("function", "operator.is_not", (), False),
        ("function", "operator.add", (), False),
        ("function", "operator.and_", (), False),
        ("function", "operator.or_", (), False),
        ("function", "operator.not_", (), False),
        ("function", "torch.relu_", (), True),
        ("function", "torch.nn.functional.relu", (("inplace", True),), True),
        ("function", "torch.nn.functional.relu", (("inplace", False),), False),
        ("function", "torch.where", (), False),
    ],
)
def test_changes_in_place(op, target, kwargs, changes):
    assert operations.is_in_place(op, target, kwargs) is changes
