"""What an adapter brings whole: saved modules, heads, biases, copies of embeddings, rows of single tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from registry.checks.heads import VOCABULARY
from registry.checks.places import upwards
from registry.domain.base_model import ModuleKind
from registry.domain.tensors import TensorSpec
from registry.plans.merge_draft import Draft, Ingredient, biases_of_head
from registry.plans.merging import Origin, TokenRows
from registry.variants.extras import without_base_layer
from registry.variants.settings import saved_modules
from registry.variants.tensor_names import Place

_ROWS = "trainable_tokens_delta"
_TOKENS = ".token_adapter"


def add_whole(draft: Draft, one: Ingredient, left: Iterator[Place], head: Mapping[str, str]) -> None:
    """``left`` are the tensors that are no factors. What is not the base's own stands against a weight other than 1; but of an
    adapter with weight 0 the base is what is wanted, so that all of it is looked for and nothing taken."""
    for place in left:
        parts = without_base_layer(place.path).split(".")
        if "original_module" in parts:
            continue  # bias="all" also takes what PEFT keeps of the base in a module saved whole
        path = ".".join(part for part in parts if part != "modules_to_save").removesuffix(_TOKENS)
        if place.tail == _ROWS:
            _add_rows(draft, one, path, place.spec, head)
            continue
        name = _stored_name(draft, one, path, place.tail, head)
        if name is None:
            continue
        if one.weight == 0:
            continue
        if _is_copy(one, path, place.tail):
            draft.copies.setdefault(name, []).append(Origin(one.weights, place.spec, one.number))
        else:
            replace_whole(draft, one, name, place.spec)


def replace_whole(draft: Draft, one: Ingredient, name: str, spec: TensorSpec) -> None:
    if one.weight != 1:
        draft.refuse(
            "weight-on-replacement",
            f"{one.name} replaces {name}, which cannot be done by a share of {one.weight:g}",
            where=spec.name,
            fix="merge it with weight 1, or train without modules_to_save and biases",
        )
        return
    draft.replaced.setdefault(name, []).append(Origin(one.weights, spec, one.number))


def _is_copy(one: Ingredient, path: str, tail: str) -> bool:
    """An embedding or output embedding that PEFT saved along with a LoRA, without being asked."""
    declared = saved_modules(one.config)
    return tail == "weight" and path.rpartition(".")[2] in VOCABULARY and not path.endswith(declared or ("\0",))


def _stored_name(draft: Draft, one: Ingredient, path: str, tail: str, head: Mapping[str, str]) -> str | None:
    if path in head and tail == "weight":
        return head[path]
    biases = biases_of_head(draft, head[path]) if path in head and tail == "bias" else []
    if biases:
        return biases[0]
    matching = one.matching
    layer, parameter = matching.module(path), matching.module(f"{path}.{tail}")
    module = layer or parameter
    if module is None:
        within = matching.places.find(path, matching.prefix)
        if f"{within}.{tail}" in draft.tensors:  # a bias of no layer, such as that of BERT's cls.predictions
            return f"{within}.{tail}"
        if any(above in matching.brought for above in upwards(path)):
            return f"{path}.{tail}"
        draft.refuse(
            "unmatched-tensor",
            f"{one.name} brings {path}.{tail}, and the base has no such module",
            target=path,
            fix="check against the base it was trained on: adapters check --base DIR",
        )
        return None
    spec = draft.stored(module) if tail == "weight" or module == parameter else None
    name = spec.name if spec is not None else f"{module.path}.{tail}"
    if module.kind is ModuleKind.EXPERTS and spec is None:
        draft.refuse(
            "saved-experts",
            f"{one.name} brings {path}.{tail} whole, and the base holds its experts as single matrices",
            target=path,
            fix="merge into a base that was saved with fused experts",
        )
        return None
    return name


def _add_rows(draft: Draft, one: Ingredient, path: str, spec: TensorSpec, head: Mapping[str, str]) -> None:
    module = one.matching.module(path)
    stored = draft.stored(module) if module is not None else None
    name = stored.name if stored is not None else head.get(path)
    indices = _indices(one, path)
    if name is None or indices is None or len(indices) != spec.shape[0]:
        draft.refuse(
            "unmatched-tensor",
            f"{spec.name} holds rows of {path}, and "
            + ("the base has no such embedding" if name is None else "the config does not say of which tokens"),
            where=spec.name,
            target=path,
            fix="check against the base it was trained on: adapters check --base DIR",
        )
    elif one.weight not in (0, 1):
        draft.refuse(
            "weight-on-replacement",
            f"{one.name} replaces rows of {path}, which cannot be done by a share of {one.weight:g}",
            where=spec.name,
            target=path,
            fix="merge it with weight 1",
        )
    elif one.weight == 1:
        draft.rows.setdefault(name, []).append(TokenRows(one.number, spec, indices))


def _indices(one: Ingredient, path: str) -> tuple[int, ...] | None:
    asked = one.config.raw.get("trainable_token_indices") or one.config.raw.get("token_indices")
    if isinstance(asked, dict):
        asked = next((value for name, value in asked.items() if path.endswith(name)), None)
    return tuple(asked) if isinstance(asked, list) and all(isinstance(one, int) for one in asked) else None
