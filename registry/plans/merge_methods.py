"""Methods other than LoRA, as changes of stored tensors. PLANNERS is the table: how a method's tensors are read, what plans
them, and which layers PEFT has it for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from registry.domain.base_model import ModuleKind
from registry.plans.merge_draft import Draft, Ingredient
from registry.plans.merge_products import add_adalora, add_hira, add_loha, add_lokr, add_miss
from registry.plans.merge_rotations import add_boft, add_hra, add_oft
from registry.plans.merge_sites import Site, site_of
from registry.plans.merge_tied import Tie
from registry.plans.merge_vectors import add_beft, add_ia3
from registry.variants.adalora import READ_ADALORA
from registry.variants.findings import some
from registry.variants.lora_checks import shown
from registry.variants.low_rank import READ_HIRA, READ_MISS
from registry.variants.lycoris import READ_LOHA, READ_LOKR
from registry.variants.modules import Method, Parts
from registry.variants.rotations import OFT, READ_BOFT, READ_HRA
from registry.variants.tensor_names import Place
from registry.variants.vectors import READ_BEFT, READ_IA3, READ_LN_TUNING, READ_TRAINABLE_TOKENS

_LINEAR = frozenset({ModuleKind.LINEAR})
_CONV = _LINEAR | {ModuleKind.CONV}
_ALL = _CONV | {ModuleKind.CONV1D}


@dataclass(frozen=True, slots=True)
class Planner:
    """``plan`` turns the tensors of one target into changes; or ``whole`` says which of a module's tensors they replace."""

    method: Method
    plan: Callable[[Draft, Ingredient, Site, Parts], None] | None = None
    layers: frozenset[ModuleKind] = frozenset()
    whole: Mapping[str, str] = field(default_factory=dict)


PLANNERS: Mapping[str, Planner] = MappingProxyType(
    {
        "ADALORA": Planner(READ_ADALORA, add_adalora, _ALL),
        "BEFT": Planner(READ_BEFT, add_beft, _LINEAR),
        "BOFT": Planner(READ_BOFT, add_boft, _CONV),
        "HIRA": Planner(READ_HIRA, add_hira, _ALL),
        "HRA": Planner(READ_HRA, add_hra, _CONV),
        "IA3": Planner(READ_IA3, add_ia3, _ALL),
        "LN_TUNING": Planner(
            READ_LN_TUNING, whole={"ln_tuning_layers.weight": "weight", "ln_tuning_layers.bias": "bias"}
        ),
        "LOHA": Planner(READ_LOHA, add_loha, _CONV),
        "LOKR": Planner(READ_LOKR, add_lokr, _CONV),
        "MISS": Planner(READ_MISS, add_miss, _LINEAR),
        "OFT": Planner(OFT, add_oft, _CONV),
        "TRAINABLE_TOKENS": Planner(READ_TRAINABLE_TOKENS, whole={"trainable_tokens_delta": "trainable_tokens_delta"}),
    }
)


def add_method(draft: Draft, one: Ingredient, head: Mapping[str, str], tie: Tie | None) -> list[Place]:
    """Every target of the adapter. ``head`` says under which name a tied output embedding is kept. Returns the tensors that
    replace the base's own."""
    planner = PLANNERS[one.manifest.peft_type]
    parts, left = planner.method.gather(one.manifest.tensors)
    lost = [place.spec.name for place in left if place.tail.startswith(planner.method.mark)]
    if lost:
        draft.refuse(
            "unmatched-tensor",
            f"{one.name} has parameters of {one.manifest.peft_type} that no layer of it has: {some(lost)}",
            where=lost[0],
            fix="check the adapter: adapters check",
        )
    for path, mine in parts.items():
        if planner.plan is None:
            left += _replacements(draft, one, planner, path, mine)
        elif one.weight != 0 and one.targets[path].rank != 0 and not _is_orphan(planner.method, mine):
            site = site_of(draft, one, path, planner.layers, head, tie)
            if site is not None:
                planner.plan(draft, one, site, mine)
    return [place for place in left if place.spec.name not in lost]


def _is_orphan(method: Method, parts: Parts) -> bool:
    """The rules name it."""
    return any(group & parts.keys() and group - parts.keys() for group in method.together)


def _replacements(draft: Draft, one: Ingredient, planner: Planner, path: str, parts: Parts) -> Iterator[Place]:
    module = one.matching.module(path)
    for tail, spec in parts.items():
        place = Place(spec, path, planner.whole[tail])
        own = draft.tensors.get(f"{module.path}.{place.tail}") if module is not None else None
        if own is not None and own[1].shape != spec.shape:
            draft.refuse(
                "wrong-shape",
                f"{spec.name} is {shown(spec.shape)}, and {own[1].name} in the base {shown(own[1].shape)}",
                where=spec.name,
                target=path,
                fix="check against the base it was trained on",
            )
        else:
            yield place
