"""Hypothesis strategies for the values of :mod:`planner.ir`, well-formed as a plan wants them."""

from __future__ import annotations

import keyword
import math

from hypothesis import strategies as st

from planner import formulas, ir

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"

identifiers = st.builds(
    str.__add__,
    st.sampled_from(_LETTERS),
    st.text(_LETTERS + "0123456789", max_size=6),
).filter(lambda name: not keyword.iskeyword(name))
floats = st.floats(allow_nan=False, allow_infinity=False)
# Without -0.0, which a default of 0.0 stands for as well.
numbers = floats.map(lambda number: number + 0.0)
positive = st.floats(min_value=1e-9, max_value=1e9)
integers = st.integers(-(2**63), 2**63 - 1)
sizes = st.integers(0, 2**40)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
dtypes = st.sampled_from(["float32", "float16", "int64", "bool", "complex64"])
shapes = st.lists(st.integers(0, 4096), max_size=4).map(tuple)
specials = st.one_of(
    st.builds(ir.Special, st.just("dtype"), dtypes),
    st.builds(ir.Special, st.just("device"), st.sampled_from(["cpu", "cuda:1", "meta"])),
    st.builds(ir.Special, st.just("memory_format"), st.just("channels_last")),
    st.builds(ir.Special, st.just("layout"), st.just("strided")),
    st.builds(ir.Special, st.just("float"), st.sampled_from(["inf", "-inf", "nan"])),
    st.builds(ir.Special, st.just("complex"), st.sampled_from(["1j", "-0.5j", "(1e-07-2j)"])),
    st.just(ir.Special("ellipsis", "...")),
    st.builds(ir.Special, st.just("function"), st.just("torch.nn.functional.relu")),
)


def names(*, min_size: int = 0, max_size: int = 3) -> st.SearchStrategy[tuple[str, ...]]:
    """Distinct Python names."""
    return st.lists(identifiers, min_size=min_size, max_size=max_size, unique=True).map(tuple)


def values(refs: tuple[str, ...] = (), slots: tuple[str, ...] = ()) -> st.SearchStrategy[ir.Value]:
    """Values that read ``refs`` and ``slots`` alone."""
    atoms = [st.none(), st.booleans(), integers, floats, texts, specials]
    atoms.append(st.builds(ir.Training, st.booleans()))
    if refs:
        atoms.append(st.builds(ir.Ref, st.sampled_from(refs)))
    if slots:
        atoms.append(st.builds(ir.Slot, st.sampled_from(slots)))

    def nested(inner: st.SearchStrategy[ir.Value]) -> st.SearchStrategy[ir.Value]:
        several = st.lists(inner, max_size=3).map(tuple)
        return st.one_of(
            several,
            st.builds(ir.Items, several),
            st.builds(ir.Mapping, st.lists(st.tuples(texts, inner), max_size=2).map(tuple)),
            st.builds(ir.Slice, st.tuples(inner, inner, inner)),
            st.builds(ir.Switch, inner, inner),
        )

    return st.recursive(st.one_of(atoms), nested, max_leaves=6)


def keywords(
    refs: tuple[str, ...] = (), slots: tuple[str, ...] = ()
) -> st.SearchStrategy[ir.Arguments]:
    """Keyword arguments."""
    return st.dictionaries(identifiers, values(refs, slots), max_size=2).map(
        lambda found: tuple(found.items())
    )


@st.composite
def nodes(
    draw: st.DrawFn, definitions: tuple[ir.Definition, ...] = (), slots: tuple[str, ...] = ()
) -> ir.Node:
    """A leaf, an instance of one of ``definitions``, a shared module, or a container of these."""
    leaf = st.builds(
        ir.Leaf,
        identifiers,
        st.lists(values(slots=slots), max_size=3).map(tuple),
        keywords(slots=slots),
    )
    choices: list[st.SearchStrategy[ir.Node]] = [leaf]
    choices.append(st.builds(ir.Shared, st.lists(identifiers, min_size=1).map(".".join)))
    if definitions:
        definition = draw(st.sampled_from(definitions))
        arguments = tuple((name, draw(values(slots=slots))) for name in definition.arguments)
        choices.append(st.just(ir.Instance(definition.name, arguments)))
    child = st.tuples(st.one_of(identifiers, st.integers(0, 99).map(str)), st.one_of(choices))
    choices.append(
        st.builds(
            ir.Container,
            st.sampled_from(["Sequential", "ModuleList", "ModuleDict"]),
            st.lists(child, max_size=3, unique_by=lambda pair: pair[0]).map(tuple),
        )
    )
    return draw(st.one_of(choices))


@st.composite
def graphs(
    draw: st.DrawFn,
    inputs: tuple[str, ...] = (),
    owned: tuple[str, ...] = (),
    slots: tuple[str, ...] = (),
) -> ir.Graph:
    """A forward in which every value is computed before it is read."""
    known, operations = inputs, []
    for result in draw(names(max_size=4)):
        choices = [("function", "torch.nn.functional.relu"), ("method", "view")]
        choices += [("module", name) for name in owned] + [("attribute", name) for name in owned]
        op, target = draw(st.sampled_from(choices))
        args = tuple(draw(st.lists(values(known, slots), max_size=3)))
        operations.append(
            ir.Operation(
                result, op, target, args, draw(keywords(known, slots)), draw(st.booleans())
            )
        )
        known = (*known, result)
    return ir.Graph(tuple(operations), draw(values(known, slots)))


@st.composite
def definitions_of(
    draw: st.DrawFn, name: str, before: tuple[ir.Definition, ...] = ()
) -> ir.Definition:
    """A definition called ``name`` that uses those ``before`` it."""
    slots, inputs, owned = draw(names()), draw(names()), draw(names(max_size=6))
    third = len(owned) // 3
    children = tuple((one, draw(nodes(before, slots))) for one in owned[:third])
    parameters = tuple(
        ir.Parameter(one, draw(values(slots=slots)), draw(dtypes), draw(st.booleans()))
        for one in owned[third : 2 * third]
    )
    buffers = tuple(
        ir.Buffer(
            one,
            draw(shapes),
            draw(dtypes),
            draw(st.booleans()),
            draw(graphs()).operations,
            draw(st.none() | texts),
        )
        for one in owned[2 * third :]
    )
    graph = st.none() | graphs(inputs, owned, slots)
    return ir.Definition(
        name,
        draw(st.sampled_from(["Module", "Sequential", "ModuleList", "ModuleDict"])),
        slots,
        children,
        parameters,
        buffers,
        tuple(ir.Input(one, draw(st.sampled_from(["tensor", "tensors", "any"]))) for one in inputs),
        draw(graph),
        draw(graph),
        draw(texts),
    )


@st.composite
def programs(draw: st.DrawFn) -> ir.Program:
    """A program of up to three definitions."""
    found: tuple[ir.Definition, ...] = ()
    for name in draw(names()):
        found = (*found, draw(definitions_of(name, found)))
    tensors = st.lists(st.builds(ir.TensorSpec, shapes, dtypes), max_size=2).map(tuple)
    sizes = st.lists(st.integers(1, 9), max_size=2).map(tuple)
    verification = st.none() | st.builds(ir.Verification, sizes, sizes, texts)
    return ir.Program(found, draw(nodes(found)), draw(tensors), draw(tensors), draw(verification))


initials = st.builds(
    ir.Initial,
    st.sampled_from(["constant", "normal", "uniform"]),
    numbers,
    st.floats(0.0, 1e6),
    st.none() | st.sampled_from(formulas.FORMULAS),
)


@st.composite
def site_lists(draw: st.DrawFn, *, max_size: int = 4) -> tuple[ir.Site, ...]:
    """Sites with distinct names and aliases."""
    path = st.lists(identifiers, min_size=1, max_size=3).map(".".join)
    found = []
    for group in draw(
        st.lists(
            st.lists(path, min_size=1, max_size=3), max_size=max_size, unique_by=lambda one: one[0]
        )
    ):
        taken = {name for site in found for name in (site.name, *site.aliases)}
        own = [name for name in dict.fromkeys(group) if name not in taken]
        if not own:
            continue
        found.append(
            ir.Site(
                name=own[0],
                aliases=tuple(own[1:]),
                owner=draw(identifiers),
                parameter=own[0].rpartition(".")[2],
                shape=draw(shapes),
                dtype=draw(dtypes),
                initial=draw(initials),
                role=draw(texts),
                repeat=draw(sizes),
                depth=draw(sizes),
                uses=draw(sizes),
                trainable=draw(st.booleans()),
                kept=draw(st.none() | texts),
            )
        )
    return tuple(found)


@st.composite
def allocations(draw: st.DrawFn, sites: tuple[ir.Site, ...]) -> ir.Allocation:
    """A placement for each of ``sites``: consistent names, arbitrary numbers."""
    banks = tuple(
        ir.Bank(
            name, draw(sizes), draw(sizes), draw(positive), draw(sizes), draw(st.floats(0.0, 1.0))
        )
        for name in draw(names())
    )
    placements = []
    for site in sites:
        bank = draw(st.sampled_from([None, *(bank.name for bank in banks)]))
        generator = "own" if bank is None else draw(st.sampled_from(ir.GENERATORS[1:]))
        counts = [draw(sizes) for _ in range(9)]
        scales = [draw(numbers) for _ in range(3)]
        placements.append(
            ir.Placement(
                site.name, generator, draw(texts), bank, *counts, *scales, draw(st.booleans())
            )
        )
    solution = ir.Solution(
        draw(identifiers),
        draw(st.sampled_from(["OPTIMAL", "FEASIBLE"])),
        draw(integers),
        draw(integers),
    )
    menu = draw(st.lists(st.sampled_from(ir.GENERATORS), unique=True).map(tuple))
    return ir.Allocation(draw(sizes), banks, tuple(placements), solution, menu)


@st.composite
def plan_fields(draw: st.DrawFn) -> dict[str, object]:
    """Keyword arguments of :class:`planner.Plan`."""
    sites = draw(site_lists())
    allocation = draw(allocations(sites))
    return {
        "spec": draw(texts),
        "seed": draw(integers),
        "evidence": draw(texts),
        "budget": draw(texts),
        "budget_parameters": allocation.budget,
        "dense_parameters": sum(math.prod(site.shape) for site in sites),
        "program": draw(programs()),
        "sites": sites,
        "allocation": allocation,
        "notes": draw(st.lists(texts, max_size=3).map(tuple)),
    }
