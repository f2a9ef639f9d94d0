"""What a combination will write, tensor by tensor.

The delta of the result at a target is Σ wᵢ·sᵢ·Bᵢ·Aᵢ over the adapters that have the target. Stacked, it is one product
again: A = [A₁; A₂; …] and B = [w₁s₁B₁, w₂s₂B₂, …], with scaling 1. A *stack* says which factors lie in it; how they are laid
out in the files is the same in all of them.

| layer | A | B |
|---|---|---|
| linear, Conv1D | (r, in) | (out, r) |
| embedding | (r, vocabulary) | (dimension, r) |
| convolution | (r, in, k…) | (out, r/groups, 1…) |
| E fused experts | (r·E, in), the expert slowest | (out, r·E), the expert fastest |
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from types import MappingProxyType

from registry.domain.tensors import DTYPE_BITS, TensorSpec
from registry.errors import InvalidInputError, InvalidValueError
from registry.variants.extras import without_base_layer
from registry.variants.lora_parameters import wrapped_module
from registry.variants.tensor_names import PREFIX

#: The weighted sum, which is exact in factors.
LINEAR = "linear"
#: What there is besides: the keys of numerics.combining.COMBINERS, and which of them draw at random or take a density.
METHODS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ties": ("density",),
        "dare_linear": ("density", "generator"),
        "dare_ties": ("density", "generator"),
        "della": ("density", "generator"),
        "della_linear": ("density", "generator"),
        "magnitude_prune": ("density",),
        "breadcrumbs": ("density",),
        "sce": ("density",),
        "model_stock": (),
        "slerp": (),
        "karcher": (),
    }
)
#: Another word for the sum: mergekit's.
ALSO_LINEAR = "task_arithmetic"
_WITH_RANK = "with a rank (--rank)"
#: PEFT's words (``combination_type`` of ``add_weighted_adapter``) for what goes by others here.
_OF_PEFT: Mapping[str, str] = MappingProxyType(
    {
        "cat": f"for cat write {LINEAR}, which is exact for any ranks",
        "svd": f"for svd write {LINEAR} {_WITH_RANK}",
        **{f"{one}_svd": f"for {one}_svd write {one} {_WITH_RANK}" for one in METHODS},
    }
)
#: A layer of one expert, and a router as transformers calls those that PEFT knows: PEFT makes parameters of the mixture of them, of
#: all experts one, with the rank ``r`` of the config whatever its pattern says (``peft/utils/transformers_weight_conversion.py``).
_OF_A_MIXTURE = re.compile(r"(?:.*\.)?(?:experts\.\d+\..*|(?:mlp|block_sparse_moe|router)\.gate)")
#: Methods that take so many adapters and no other number.
EXACTLY: Mapping[str, int] = MappingProxyType({"slerp": 2})


@dataclass(frozen=True, slots=True)
class Blend:
    """How deltas become one: ``linear`` (or ``task_arithmetic``, which is read as that) or a key of METHODS, the share of elements
    that it keeps, and the seed of what it draws. Options that a method has no use for change nothing. Raises InvalidValueError."""

    method: str = LINEAR
    density: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method == ALSO_LINEAR:
            object.__setattr__(self, "method", LINEAR)  # frozen from here on
        methods = (LINEAR, *METHODS)
        if self.method not in methods:
            known = ", ".join(methods)
            raise InvalidValueError("method", self.method, f"one of {known}", hint=_OF_PEFT.get(self.method))
        require_share("density", self.density)

    @property
    def is_linear(self) -> bool:
        return self.method == LINEAR

    @property
    def options(self) -> Mapping[str, object]:
        """Those that the result depends on."""
        uses = METHODS.get(self.method, ())
        density = {"density": self.density} if "density" in uses else {}
        return {**density, **({"seed": self.seed} if "generator" in uses else {})}


@dataclass(frozen=True, slots=True)
class Method:
    """How deltas become one, and how much of it is kept: ``rank`` is the most that a layer keeps, ``energy`` the least share of
    Σσ² that it has to, ``max_bytes`` the most that the file of weights may have; None for no limit. What is not ``linear`` is
    made in delta space, of which a layer keeps at most the sum of the ranks. Raises InvalidInputError."""

    blend: Blend = field(default_factory=Blend)
    rank: int | None = None
    energy: float | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        require_count("rank", self.rank)
        require_share("energy", self.energy)
        require_count("number of bytes", self.max_bytes)
        if self.energy is not None and self.max_bytes is not None:
            raise InvalidInputError(
                "a share of the energy may need more bytes than the file may have",
                code="energy-and-bytes",
                hint="give one of --energy and --max-bytes",
            )

    @property
    def is_exact(self) -> bool:
        return self.blend.is_linear and self.rank is None and self.energy is None and self.max_bytes is None


@dataclass(frozen=True, slots=True)
class Share:
    """The factors of one adapter: its delta is scaling · B · A, and it is wanted with this weight."""

    adapter: int
    down: TensorSpec
    up: TensorSpec
    scaling: float
    weight: float
    bias: TensorSpec | None = None

    @property
    def factor(self) -> float:
        """What B is multiplied by in the sum."""
        return self.weight * self.scaling


@dataclass(frozen=True, slots=True)
class Stack:
    """One target of the result. ``name`` is what its tensors are called before their last part; ``dtype`` is that of the
    result's factors."""

    path: str
    name: str
    shares: tuple[Share, ...]
    dtype: str
    experts: int = 1
    embedding: bool = False
    groups: int = 1
    bias: bool = False

    @property
    def rank(self) -> int:
        """Of the exact sum, for each expert."""
        return sum(share.down.shape[0] for share in self.shares) // self.experts

    @property
    def is_parameter(self) -> bool:
        """Whether the target is a bare parameter of the module that the tensors stand below."""
        return self.path != without_base_layer(wrapped_module(self.name.removeprefix(PREFIX))[0])

    @property
    def has_common_rank(self) -> bool:
        """Whether all targets of this kind have one rank, for PEFT heeds no pattern of theirs, or says that it had not."""
        is_linear = self.groups == 1 and not self.embedding
        return self.is_parameter or (is_linear and is_of_mixture(self.path))

    @property
    def tails(self) -> tuple[str, str]:
        return factor_tails(embedding=self.embedding)


@dataclass(frozen=True, slots=True)
class Passed:
    """A tensor that goes into the result as it is: every adapter that has it has the same numbers. One that replaces the base's
    does so whole; ``weight`` is the sum of the weights of those who have it."""

    adapter: int
    spec: TensorSpec
    others: tuple[tuple[int, TensorSpec], ...] = ()
    is_replacement: bool = True
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of single tokens, those of one adapter below those of another; ``indices`` says of which tokens, in that order."""

    name: str
    parts: tuple[tuple[int, TensorSpec], ...]
    indices: tuple[int, ...]

    @property
    def spec(self) -> TensorSpec:
        """Of the result: as wide as the widest part."""
        first = self.parts[0][1]
        return TensorSpec(
            self.name, widest(spec.dtype for _, spec in self.parts), (len(self.indices), *first.shape[1:])
        )


def factor_tails(*, embedding: bool) -> tuple[str, str]:
    """What A and B are called below their module."""
    return ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A.weight", "lora_B.weight")


def require_share(kind: str, value: float | None) -> None:
    if value is not None and not (isinstance(value, Real) and 0 < value <= 1):
        raise InvalidValueError(kind, str(value), "a share above 0, at most 1")


def require_count(kind: str, value: int | None) -> None:
    if value is not None and not (isinstance(value, Integral) and value >= 1):
        raise InvalidValueError(kind, str(value), "a whole number from 1")


def is_of_mixture(path: str) -> bool:
    return _OF_A_MIXTURE.fullmatch(path) is not None


def widest(dtypes: Iterable[str]) -> str:
    """The type with most bits; F16 and BF16 have only F32 in common, and what has 8 bits is no type of factors."""
    bits = {one: DTYPE_BITS[one] for one in dtypes}
    most = max(bits.values(), default=0)
    names = {one for one, size in bits.items() if size == most}
    return "F32" if len(names) > 1 or most < 16 else next(iter(names))


@dataclass(frozen=True, slots=True)
class CombinePlan:
    """``config`` is the result's, without ranks, which a truncation may still lower. ``tied`` are an embedding and the output that
    is the same matrix: the factors of one are those of the other, turned round."""

    stacks: tuple[Stack, ...]
    passed: tuple[Passed, ...]
    config: Mapping[str, object]
    rows: tuple[Rows, ...] = ()
    tied: tuple[tuple[Stack, Stack], ...] = ()
