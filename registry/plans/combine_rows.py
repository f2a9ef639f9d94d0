"""Rows of single tokens that several adapters trained: one table of all of them, where no token is in two.

A row replaces the base's, so that adapters with other tokens do not meet: the sum has each row of each. Of a row that two
adapters have there is no sum without the base's, and no share of one; nor where an adapter has a LoRA of the whole embedding,
which would act on the rows of the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from registry.domain.tensors import TensorSpec
from registry.plans.combining import Rows
from registry.plans.merge_draft import Ingredient
from registry.variants.findings import some
from registry.variants.tensor_names import PREFIX
from registry.variants.token_rows import DELTA, WRAPPER, token_indices

_FIELD = "trainable_token_indices"
_FIX = "combine adapters that trained other tokens, or train them anew"


@dataclass(frozen=True, slots=True)
class Objection:
    rule: str
    message: str
    where: str
    fix: str


def united_rows(
    name: str, held: Sequence[tuple[int, TensorSpec]], adapters: Sequence[Ingredient], targets: Collection[str]
) -> Rows | Objection:
    """``held`` is the tensor of that name in each adapter that has it, ``targets`` the paths of all LoRA layers."""
    path = name.removeprefix(PREFIX).removesuffix(f".{DELTA}").removesuffix(WRAPPER)
    having = [adapters[number] for number, _ in held]
    asked = [token_indices(one.config) for one in adapters if one.weight != 0]
    forms = {tuple(one) if isinstance(one, Mapping) else None for one in asked if one is not None}
    indices = [_of(one, path) for one in having]
    counts = Counter(index for each in indices for index in set(each))
    twice = sorted(index for index, count in counts.items() if count > 1)
    share = next((one for one in having if one.weight != 1), None)
    if twice:
        what = f"two adapters trained {path} for the same tokens, {some([str(index) for index in twice])}, each in its own way"
        return Objection("token-rows-overlap", what, name, _FIX)
    if share is not None:
        what = (
            f"{share.name} replaces rows of {path}, of which there is no share of {share.weight:g} without the base's"
        )
        return Objection("weight-on-replacement", what, name, "give it weight 1")
    if path in targets:
        what = f"an adapter has a LoRA of the whole {path}, and others have rows of it that replace the base's"
        return Objection("token-rows-overlap", what, name, _FIX)
    if len(forms) > 1 or len({spec.shape[1:] for _, spec in held}) > 1:
        what = f"{_FIELD} is not about the same embeddings in all adapters"
        return Objection("token-rows-differ", what, _FIELD, "save them with the same embeddings named")
    return Rows(name, tuple(held), tuple(index for each in indices for index in each))


def united_indices(adapters: Sequence[Ingredient]) -> object:
    """``trainable_token_indices`` of the result, in the order in which :func:`united_rows` has the rows."""
    asked = [found for one in adapters if one.weight != 0 and (found := token_indices(one.config)) is not None]
    if not asked:
        return None
    if all(one == asked[0] for one in asked):
        return asked[0]
    if isinstance(asked[0], Mapping):
        return {name: [index for one in asked if isinstance(one, Mapping) for index in one[name]] for name in asked[0]}
    return [index for one in asked for index in one]


def _of(one: Ingredient, path: str) -> Sequence[int]:
    asked = token_indices(one.config)
    if isinstance(asked, Mapping):
        return next((indices for name, indices in asked.items() if path.endswith(name)), ())
    return asked or ()
