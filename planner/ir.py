"""The frozen values that stages exchange.

``Program`` is the captured model: *definitions* (one per distinct block structure) and the root
instance. ``Site`` is one parameter tensor. ``Allocation`` says which bank and generator each site
has. Nothing here knows torch, a solver or a file.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

# --------------------------------------------------------------------------- values in a program


@dataclass(frozen=True, slots=True)
class Ref:
    """A value of a forward: an input or the result of an earlier operation."""

    ref: str


@dataclass(frozen=True, slots=True)
class Slot:
    """A constructor parameter of the enclosing definition."""

    slot: str


@dataclass(frozen=True, slots=True)
class Training:
    """The module's mode: ``self.training``, or its negation."""

    training: bool


@dataclass(frozen=True, slots=True)
class Switch:
    """A literal that depends on the module's mode: ``train if self.training else eval``."""

    train: Value
    eval: Value


@dataclass(frozen=True, slots=True)
class Items:
    """A list (tuples stand for themselves)."""

    list: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    """A dict with string keys, in order."""

    dict: tuple[tuple[str, Value], ...]


@dataclass(frozen=True, slots=True)
class Slice:
    """``slice(start, stop, step)``."""

    slice: tuple[Value, Value, Value]


@dataclass(frozen=True, slots=True)
class Special:
    """A literal that JSON lacks: a dtype, device, ``...``, a complex or a non-finite number.

    ``special`` is one of ``dtype``, ``device``, ``memory_format``, ``layout``, ``float``,
    ``complex``, ``ellipsis``, ``function`` (an activation by public name).
    """

    special: Literal[
        "dtype", "device", "memory_format", "layout", "float", "complex", "ellipsis", "function"
    ]
    text: str


@dataclass(frozen=True, slots=True)
class Leaf:
    """A constructor call of a ``torch.nn`` module: ``type`` is its name in ``torch.nn``.

    Its arguments may be such calls themselves.
    """

    type: str
    args: tuple[Value, ...] = ()
    kwargs: Arguments = ()


Value: TypeAlias = (
    bool
    | int
    | float
    | str
    | Ref
    | Slot
    | Training
    | Switch
    | Items
    | Mapping
    | Slice
    | Special
    | Leaf
    | tuple["Value", ...]
    | None
)


def references(value: object) -> list[str]:
    """Names of the forward's values that ``value`` reads, in order."""
    if isinstance(value, Ref):
        return [value.ref]
    if isinstance(value, tuple):
        return [name for item in value for name in references(item)]
    if isinstance(value, Items):
        return references(value.list)
    if isinstance(value, Mapping):
        return references(tuple(item for _, item in value.dict))
    if isinstance(value, Slice):
        return references(value.slice)
    if isinstance(value, Switch):
        return references((value.train, value.eval))
    return []


Arguments: TypeAlias = tuple[tuple[str, Value], ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """One line of a forward.

    ``op`` is ``module`` (call the child ``target``), ``function`` (public name such as
    ``torch.nn.functional.relu`` or ``operator.add``), ``method`` (of ``args[0]``) or ``attribute``
    (read the module's own parameter or buffer ``target``).
    ``result`` names the value; ``tensor`` says whether it is one. ``name`` is what the model's
    author calls it, where that is known: unlike ``result`` it may stand for several values.
    """

    result: str
    op: Literal["module", "function", "method", "attribute"]
    target: str
    args: tuple[Value, ...] = ()
    kwargs: Arguments = ()
    tensor: bool = True
    name: str = ""


@dataclass(frozen=True, slots=True)
class Input:
    """An argument of a forward: ``tensor``, ``tensors`` (a list of them) or ``any``."""

    name: str
    type: Literal["tensor", "tensors", "any"] = "tensor"


@dataclass(frozen=True, slots=True)
class Graph:
    """A forward in one mode."""

    operations: tuple[Operation, ...]
    output: Value


# --------------------------------------------------------------------------- the module hierarchy


@dataclass(frozen=True, slots=True)
class Container:
    """``Sequential``, ``ModuleList`` or ``ModuleDict`` with named children."""

    container: Literal["Sequential", "ModuleList", "ModuleDict"]
    children: tuple[tuple[str, Node], ...]


@dataclass(frozen=True, slots=True)
class Instance:
    """A constructor call of a definition."""

    definition: str
    arguments: Arguments = ()


@dataclass(frozen=True, slots=True)
class Shared:
    """The module that already stands at ``path`` (from the root): one module under two names."""

    shared: str


Node: TypeAlias = Leaf | Container | Instance | Shared


@dataclass(frozen=True, slots=True)
class Parameter:
    """A bare parameter of a definition."""

    name: str
    shape: Value
    dtype: str = "float32"
    trainable: bool = True


LITERAL_LIMIT = 65536
"""Characters of a constant's data that a source holds; what is longer has a file beside it."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """A buffer (or constant tensor) of a definition, with the value the model computed.

    ``expression`` is a recognised chain of operations such as ``torch.full(...).triu(1)``, the last
    one giving the value; else ``data`` is base64 of the zlib-compressed little-endian bytes.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    persistent: bool
    expression: tuple[Operation, ...] = ()
    data: str | None = None


Rung: TypeAlias = Literal["symbolic", "recorded"]


@dataclass(frozen=True, slots=True)
class Definition:
    """A class of the emitted file: one per distinct structure.

    ``base`` is ``Module`` or ``Sequential`` (then children are its items and the inherited forward
    is meant: ``train`` is None). ``arguments`` are the names of constructor arguments. ``eval`` is
    None where the mode changes nothing but flags. ``rung`` is how the forward was captured.
    ``fixed`` are arguments that the forward takes besides its inputs, at these values alone.
    """

    name: str
    base: Literal["Module", "Sequential", "ModuleList", "ModuleDict"]
    arguments: tuple[str, ...] = ()
    children: tuple[tuple[str, Node], ...] = ()
    parameters: tuple[Parameter, ...] = ()
    buffers: tuple[Buffer, ...] = ()
    inputs: tuple[Input, ...] = ()
    train: Graph | None = None
    eval: Graph | None = None
    doc: str = ""
    rung: Rung = "symbolic"
    fixed: Arguments = ()


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Shape and dtype of an example tensor."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Verification:
    """Where the captured program was run beside the model, and did the same.

    Attributes:
        train: batch sizes in training.
        eval: batch sizes in evaluation.
        reason: why there are not two of each, and what the model does otherwise where nobody
            watches; empty if there are, and nothing is.
        free: other sizes at which both ran and agreed, such as ``length 10`` of the example.
        fixed: sizes at which the model runs and the captured program does not, each with the path
            of the module that depends on the example's.
    """

    train: tuple[int, ...] = ()
    eval: tuple[int, ...] = ()
    reason: str = ""
    free: tuple[str, ...] = ()
    fixed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Program:
    """A captured model: definitions before their users, the root instance last.

    ``verification`` is None where nothing is known about it. ``obstacle`` says what stopped the
    capture of a forward whose course depends on tensors' values: then no definition has a forward,
    and the program is for planning and reporting alone.
    """

    definitions: tuple[Definition, ...]
    root: Node
    example_inputs: tuple[TensorSpec, ...]
    example_outputs: tuple[TensorSpec, ...]
    verification: Verification | None = None
    obstacle: str = ""


# --------------------------------------------------------------------------- sites


@dataclass(frozen=True, slots=True)
class Initial:
    """The distribution that the model's own initialiser draws a tensor from.

    ``formula`` names a scheme of ``torch.nn.init`` that gives exactly this distribution for the
    tensor's shape, as (function, keyword arguments), so that one line serves all sizes.
    """

    family: Literal["constant", "normal", "uniform"]
    mean: float
    std: float
    formula: str | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """One parameter tensor of the model, once, however many names it has.

    Attributes:
        name: its first key in the state dict.
        aliases: its other keys (tied tensors).
        owner: type of the module that holds it ("Conv2d", or a definition's name).
        parameter: its name in that module ("weight").
        shape: as stored.
        role: what it is within a repeated block ("BasicBlock.conv1.weight").
        repeat: how many sites of the same role come before it.
        depth: longest path of layers from an input to its owner.
        uses: how often a forward reads it.
        kept: why it must keep its own parameters; None where a generator may make it.
        values: of a frozen tensor that the model computes; ``initial`` is not drawn from then.
    """

    name: str
    aliases: tuple[str, ...]
    owner: str
    parameter: str
    shape: tuple[int, ...]
    dtype: str
    initial: Initial
    role: str
    repeat: int = 0
    depth: int = 0
    uses: int = 1
    trainable: bool = True
    kept: str | None = None
    values: Buffer | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def matrix(self) -> tuple[int, int]:
        """(rows, columns) as a matrix: first axis × rest, leading unit axes dropped."""
        shape = self.shape
        while len(shape) > 2 and shape[0] == 1:
            shape = shape[1:]
        rows = shape[0] if shape else 1
        return rows, math.prod(shape[1:])

    @property
    def shareable(self) -> bool:
        """Whether a generator may make it."""
        return self.trainable and self.kept is None and self.size > 0


# --------------------------------------------------------------------------- allocation

Generator: TypeAlias = Literal[
    "own", "mix", "interpolate", "repeat", "mask", "hash", "lowrank", "tie", "blend"
]

GENERATORS: tuple[Generator, ...] = (
    "own",
    "mix",
    "interpolate",
    "repeat",
    "mask",
    "hash",
    "lowrank",
    "tie",
)
"""What an allocator may choose from; ``blend`` is for probes alone."""
MENU: tuple[Generator, ...] = tuple(name for name in GENERATORS if name != "tie")
"""What is tried without being asked for: equal tensors are for comparison alone."""


@dataclass(frozen=True, slots=True)
class CandidateGroup:
    """Sites that may share a bank, and what it costs.

    ``dissimilarity[i]`` in [0, 1] belongs to ``members[i]`` (a site's name): how unlike the others
    it is; 0 costs nothing.
    """

    name: str
    members: tuple[str, ...]
    dissimilarity: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about which sites can share, and how much each matters (1.0 is neutral)."""

    source: str
    groups: tuple[CandidateGroup, ...]
    importance: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Bank:
    """A flat vector of ``size`` trainable parameters, read as a ring by its sites.

    ``coefficients`` more parameters hold the mixing coefficients of its sites.
    ``std`` is the standard deviation at which the vector is stored; ``chunk`` the length of the
    contiguous runs in which hash generators read it.
    """

    name: str
    size: int
    coefficients: int
    std: float
    chunk: int
    dissimilarity: float = 0.0


@dataclass(frozen=True, slots=True)
class Placement:
    """How one site's tensor W (n elements, matrix view O × I) is made from bank b (m elements).

    Reads are modulo m (the bank is a ring). c are the site's ``count`` coefficients, which start at
    ``coefficient`` in the bank's coefficient vector and are multiplied by ``step`` before use.
    W = mean + scale · G, with G:

    - ``own``: W is a parameter; bank is None, all else unused.
    - ``mix``: Σ_k c_k T_k, k < ``templates``; T_k[i] = b[start + k·stride + i]. n ≤ m.
    - ``interpolate``: bilinear resize to O × I of Σ_k c_k T_k viewed as ``rows`` × ``columns``,
      T_k of rows·columns elements at start + k·stride. n > m.
    - ``repeat`` and ``mask``: G[i] = c[i div L] · b[start + i], copies of the ring in windows of
      L = ceil(n / count) ≤ m elements with a factor each, so that no two copies are the same; all
      windows begin within the tensor: count = ceil(n / L). n > m.
    - ``hash``: with chunks of L = bank.chunk elements, C = ceil(m / L) chunks in the ring (the last
      one wraps), F = n div L full chunks and P = max(1, min(F, C)): full chunk j of W is ± chunk
      (start + (stride·(j mod P) + seed·(j div P)) mod P) mod C, the remaining n mod L elements
      are ± the head of chunk (start + F) mod C (as j = F). The sign of chunk j is 1 - 2·bit with
      h = ((j + 1)·2654435761 + seed·668265263) mod 2^32, bit = the top bit of
      (h xor (h div 2^15))·1540483477 mod 2^32: integers alone, so the same on every machine.
      start counts chunks; stride is coprime to P. No coefficients.
    - ``lowrank``: A·B, A = b[: O·r] as O × r, B = b[O·r :] as r × I, r = ``rank``; a bank of its
      own.
    - ``tie``: b itself (m = n), for every site that ties to it.
    - ``blend``: Σ_k (p_k - z) T_k, p = softmax(c), T_k as for ``mix``, of any n: the ring is read
      over and over where n > m. z is 0, or 1 / ``templates`` for a tensor that starts at a constant
      (``zero``), where c = 0. ``templates`` ≥ 2, ``step`` = 1.
    """

    site: str
    generator: Generator
    reason: str
    bank: str | None = None
    start: int = 0
    stride: int = 0
    templates: int = 0
    coefficient: int = 0
    count: int = 0
    rows: int = 0
    columns: int = 0
    rank: int = 0
    seed: int = 0
    scale: float = 1.0
    mean: float = 0.0
    step: float = 1.0
    zero: bool = False


@dataclass(frozen=True, slots=True)
class Solution:
    """What an allocator says of its result: integer objective and bound, in the model's own unit.

    ``allocator`` is ``cp-sat``, or the name of a rule. A rule searches nothing and knows no bound:
    its status is ``RULE``, and its bound its objective.

    ``stopped`` says what ended the search before its limit of work: a time limit, or Ctrl-C.
    """

    allocator: str
    status: Literal["OPTIMAL", "FEASIBLE", "RULE"]
    objective: int
    bound: int
    stopped: Literal["", "time limit", "interrupted"] = ""

    @property
    def gap(self) -> float:
        """Relative distance of bound and objective."""
        return abs(self.bound - self.objective) / max(1, abs(self.objective))


@dataclass(frozen=True, slots=True)
class Allocation:
    """A bank and a generator for each site, under a budget (in parameters)."""

    budget: int
    banks: tuple[Bank, ...]
    placements: tuple[Placement, ...]
    solution: Solution
    generators: tuple[Generator, ...] = MENU


def is_attribute(name: str) -> bool:
    """Whether a program may call a module or tensor so: ``conv1``, ``0``, ``conv-1``, ``class``.

    What Python cannot write as an attribute is written as ``getattr(self, "conv-1")``.
    """
    return re.fullmatch(r"[\w-]+", name) is not None


def significant(value: float, digits: int = 6) -> float:
    """``value`` rounded to significant digits, so that text made from it is the same everywhere."""
    return float(f"{value:.{digits}g}")
