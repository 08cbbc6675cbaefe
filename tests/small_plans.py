"""A plan made by hand: two convolutions of one role share a bank, and so do two linears."""

from planner.ir import (
    Allocation,
    Bank,
    Container,
    Initial,
    Leaf,
    Placement,
    Program,
    Site,
    Solution,
    TensorSpec,
)
from planner.plans import Plan


def linear(index):
    return str(index), Leaf("Linear", (8, 8))


def site(name, shape, **fields):
    return Site(
        name=name,
        aliases=(),
        owner="Linear",
        parameter=name.rpartition(".")[2],
        shape=shape,
        dtype="float32",
        initial=Initial("normal", 0.0, 0.1),
        role=name,
        **fields,
    )


def small_plan():
    """Four linears of 8 x 8: three hash one bank of 64 parameters, one mixes two templates."""
    children = tuple(linear(index) for index in range(4))
    weights = tuple(site(f"{index}.weight", (8, 8), depth=index) for index in range(4))
    biases = tuple(
        site(f"{index}.bias", (8,), kept="one value a channel", depth=index) for index in range(4)
    )
    hashed = tuple(
        Placement(
            f"{index}.weight", "hash", "shares with its role", bank="ring", stride=1, seed=index
        )
        for index in range(3)
    )
    mixed = Placement(
        "3.weight", "mix", "high budget", bank="pair", stride=64, templates=2, count=2
    )
    kept = tuple(Placement(f"{index}.bias", "own", "kept") for index in range(4))
    banks = (
        Bank("ring", size=64, coefficients=0, std=0.1, chunk=8),
        Bank("pair", size=128, coefficients=2, std=0.1, chunk=8),
    )
    return Plan(
        spec="small.py:small",
        seed=0,
        evidence="shape",
        budget="90%",
        budget_parameters=259,
        dense_parameters=288,
        program=Program(
            definitions=(),
            root=Container("Sequential", children),
            example_inputs=(TensorSpec((2, 8), "float32"),),
            example_outputs=(TensorSpec((2, 8), "float32"),),
        ),
        sites=tuple(one for pair in zip(weights, biases, strict=True) for one in pair),
        allocation=Allocation(
            budget=259,
            banks=banks,
            placements=(*hashed, mixed, *kept),
            solution=Solution("cp-sat", "OPTIMAL", objective=1000, bound=1010),
        ),
    )
