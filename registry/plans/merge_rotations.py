"""Turned weights: OFT, BOFT, HRA. None is a delta, so there is no share of one."""

from __future__ import annotations

import re
from math import inf, isqrt, prod

from registry.plans.merge_draft import Draft, Ingredient
from registry.plans.merge_sites import Site, add_change, fit, required, size
from registry.variants.modules import Parts

_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})")
#: Since then the last term of the Cayley-Neumann series counts once.
_NEUMANN_SINCE = (0, 18)


def add_oft(draft: Draft, one: Ingredient, site: Site, parts: Parts) -> None:
    is_embedding = "oft_embedding_R.weight" in parts
    if not is_embedding and "oft_R.weight" not in parts:
        draft.refuse(
            "oft-too-old",
            f"{site.path} was trained with PEFT 0.15 or older, whose OFT was another method under the same name",
            where=next(iter(parts.values())).name,
            target=site.path,
            fix="merge it with that PEFT",
        )
        return
    angles = parts["oft_embedding_R.weight" if is_embedding else "oft_R.weight"]
    if prod(site.kernel) > 1:
        draft.refuse(
            "oft-convolution",
            f"{site.path} is a convolution, and PEFT trains OFT of one with an input that it lays together again from patches that "
            "overlap: no weight does that, and its own merge does not",
            target=site.path,
            fix="serve it unmerged with PEFT",
        )
        return
    count = size(angles, 1)
    block = (1 + isqrt(1 + 8 * max(count, 0))) // 2
    blocks = 1 if one.config.flag("block_share") else site.width // block
    whole = blocks if site.width % block == 0 else -1
    shape = (whole, block * (block - 1) // 2)
    if not fit(draft, site, [(angles, [shape])]) or not _is_known_series(draft, one, site):
        return
    is_series = one.config.flag("use_cayley_neumann", default=True)
    add_change(
        draft,
        one,
        site,
        "oft_embedding" if is_embedding else "oft",
        {"angles": angles},
        terms=max(one.config.integer("num_cayley_neumann_terms", 5), 1) if is_series else 0,
        limit=one.config.number("eps", 6e-5) if one.config.flag("coft") else inf,
    )


def _is_known_series(draft: Draft, one: Ingredient, site: Site) -> bool:
    if not one.config.flag("use_cayley_neumann", default=True):
        return True
    found = _VERSION.match(one.config.peft_version or "")
    if found is not None and (int(found[1]), int(found[2])) >= _NEUMANN_SINCE:
        return True
    message = f"{one.name} was trained with the Cayley-Neumann series of a PEFT before 0.18, which was another one"
    if not any(problem.message == message for problem in draft.problems):
        draft.refuse(
            "oft-series-changed",
            message,
            where="use_cayley_neumann",
            target=site.path,
            fix="merge it with that PEFT; or write the PEFT that trained it into adapter_config.json (peft_version), if it was "
            "0.18 or newer",
        )
    return False


def add_boft(draft: Draft, one: Ingredient, site: Site, parts: Parts) -> None:
    found = required(draft, site, parts, "boft_R", "boft_s")
    if found is None:
        return
    blocks, scale = found
    if len(blocks.shape) == 4 and blocks.shape[0] > 1:
        draft.refuse(
            "boft-butterfly",
            f"{site.path} was trained with a butterfly factor of {size(blocks, 0)}, and this version has a merger for 1",
            where=blocks.name,
            target=site.path,
            fix="merge it with PEFT's merge_and_unload",
        )
        return
    block = max(size(blocks, -1), 1)
    count = site.width // block if site.width % block == 0 else -1
    scales = (1, site.outputs) if site.kernel else (site.outputs, 1)
    if fit(draft, site, [(blocks, [(1, count, block, block)]), (scale, [scales])]):
        add_change(draft, one, site, "boft", {"blocks": blocks, "scale": scale})


def add_hra(draft: Draft, one: Ingredient, site: Site, parts: Parts) -> None:
    found = required(draft, site, parts, "hra_u")
    if found is None:
        return
    (vectors,) = found
    if fit(draft, site, [(vectors, [(site.width, size(vectors, 1))])]):
        orthogonal = float(one.config.flag("apply_GS"))
        add_change(draft, one, site, "hra", {"vectors": vectors}, orthogonal=orthogonal)
