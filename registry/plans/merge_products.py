"""Changes that are products of factors: LOHA, LOKR, ADALORA, HIRA, MISS."""

from __future__ import annotations

from math import prod

from registry.domain.tensors import TensorSpec
from registry.plans.merge_draft import Draft, Ingredient
from registry.plans.merge_sites import Site, add_change, fit, required, scaling_of, size
from registry.variants.lora_checks import shown
from registry.variants.modules import Parts


def add_loha(draft: Draft, one: Ingredient, site: Site, parts: Parts) -> None:
    scaling = scaling_of(draft, one, site)
    found = required(draft, site, parts, "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    if scaling is None or found is None:
        return
    up, down, other_up, other_down = found
    rank = size(down, 0)
    factors = {"w1_a": up, "w1_b": down, "w2_a": other_up, "w2_b": other_down}
    kernels = {role: parts[f"hada_{role}"] for role in ("t1", "t2") if f"hada_{role}" in parts}
    ups, downs = ((rank, site.outputs), (rank, site.inputs)) if kernels else ((site.outputs, rank), (rank, site.width))
    fitting = fit(draft, site, [(spec, [ups if role.endswith("a") else downs]) for role, spec in factors.items()])
    if fit(draft, site, [(spec, _kernel_shapes(site, rank)) for spec in kernels.values()]) and fitting:
        formula = "loha_kernel" if kernels else "loha"
        add_change(draft, one, site, formula, {**factors, **kernels}, scaling=scaling)


def _kernel_shapes(site: Site, rank: int) -> list[tuple[int, ...]]:
    """PEFT gives the kernel of a Conv1d layer a second dimension of one."""
    plain = (rank, rank, *site.kernel)
    return [plain, (*plain, 1)] if len(site.kernel) == 1 else [plain]


def add_lokr(draft: Draft, one: Ingredient, site: Site, parts: Parts) -> None:
    scaling = scaling_of(draft, one, site)
    first, second = _product(site, parts, "lokr_w1"), _product(site, parts, "lokr_w2", parts.get("lokr_t2"))
    if scaling is None:
        return
    if first is None or second is None or (first[0] * second[0], first[1] * second[1]) != (site.outputs, site.width):
        sizes = ", ".join(f"{tail} {shown(part.shape)}" for tail, part in sorted(parts.items()))
        draft.refuse(
            "wrong-shape",
            f"the factors of {site.path} ({sizes}) do not make {shown(site.shape)}",
            where=next(iter(parts.values())).name,
            target=site.path,
            fix="check against the base it was trained on",
        )
        return
    factors = {tail.removeprefix("lokr_"): spec for tail, spec in parts.items()}
    is_sequence = "w2" in factors and len(factors["w2"].shape) == 3
    add_change(draft, one, site, "lokr_sequence" if is_sequence else "lokr", factors, scaling=scaling)


def _product(site: Site, parts: Parts, name: str, kernel: TensorSpec | None = None) -> tuple[int, int] | None:
    """Rows and columns of W₁, or of W₂ with the kernel in its columns; None unless it is there once, whole or in parts."""
    whole, up, down = (parts.get(f"{name}{end}") for end in ("", "_a", "_b"))
    if whole is not None:
        is_matrix = len(whole.shape) == 2 or (len(whole.shape) > 2 and whole.shape[2:] == site.kernel)
        return (whole.shape[0], prod(whole.shape[1:])) if is_matrix and not (up or down or kernel) else None
    if up is None or down is None or len(up.shape) != 2 or len(down.shape) != 2:
        return None
    if kernel is None:
        return (up.shape[0], down.shape[1]) if up.shape[1] == down.shape[0] else None
    is_kernel = up.shape[0] == down.shape[0] and kernel.shape in _kernel_shapes(site, up.shape[0])
    return (up.shape[1], down.shape[1] * prod(site.kernel)) if is_kernel else None


def add_adalora(draft: Draft, one: Ingredient, site: Site, parts: Parts) -> None:
    """PEFT divides by the rank that training began with: it makes the layer with ``init_r``, and keeps that number when it takes
    out the singular values that ``rank_pattern`` masks."""
    found = required(draft, site, parts, "lora_A", "lora_B", "lora_E")
    scaling = scaling_of(draft, one, site)
    if found is None or scaling is None:
        return
    down, up, values = found
    rank, initial = size(down, 0), one.config.integer("init_r", 12)
    wanted = [(down, [(rank, site.width)]), (up, [(site.outputs, rank)]), (values, [(rank, 1)])]
    if fit(draft, site, wanted) and _is_masked(draft, one, site, rank, initial):
        factors = {"down": down, "up": up, "values": values}
        add_change(draft, one, site, "adalora", factors, scaling=scaling, initial_rank=initial)


def _is_masked(draft: Draft, one: Ingredient, site: Site, rank: int, initial: int) -> bool:
    """Whether the file has as many singular values as the config keeps."""
    masks = one.config.raw.get("rank_pattern")
    mask = masks.get(f"{site.path}.lora_E") if isinstance(masks, dict) else None
    kept, of = (sum(map(bool, mask)), len(mask)) if isinstance(mask, list) else (initial, initial)
    if initial > 0 and (rank, initial) == (kept, of):
        return True
    draft.refuse(
        "rank-mismatch",
        f"{site.path} has {rank} singular values, and the config keeps {kept} of {of}, where training began with {initial}",
        where="rank_pattern",
        target=site.path,
        fix="correct init_r and rank_pattern in adapter_config.json; PEFT cannot load the adapter as it is",
    )
    return False


def add_hira(draft: Draft, one: Ingredient, site: Site, parts: Parts) -> None:
    tails = ("hira_A", "hira_B")
    if "hira_embedding_A" in parts or "hira_embedding_B" in parts:
        site, tails = site.turned, ("hira_embedding_A", "hira_embedding_B")
    found = required(draft, site, parts, *tails)
    if found is None:
        return
    down, up = found
    rank, ones = size(down, 0), (1,) * len(site.kernel)
    if fit(draft, site, [(down, [(rank, site.inputs, *site.kernel)]), (up, [(site.outputs, rank, *ones)])]):
        add_change(draft, one, site, "hira", {"down": down, "up": up}, scaling=one.weight)


def add_miss(draft: Draft, one: Ingredient, site: Site, parts: Parts) -> None:
    """``init_weights`` says which of three forms of the method it is."""
    found = required(draft, site, parts, "miss_block")
    if found is None:
        return
    (block,) = found
    form = one.config.raw.get("init_weights")
    if form == "bat":
        draft.refuse(
            "miss-bat",
            f'{site.path} was trained with init_weights "bat", a product with blocks of the base for which this version has no '
            "merger",
            where="init_weights",
            target=site.path,
            fix="merge it with PEFT's merge_and_unload",
        )
        return
    outputs = one.config.integer("mini_r", 1) if form == "mini" else site.outputs
    divides = outputs > 0 and site.outputs % outputs == 0
    if fit(draft, site, [(block, [(size(block, 0), outputs)] if divides else [])]):
        numbers = {"scaling": one.weight, "inputs": float(site.inputs), "outputs": float(site.outputs)}
        add_change(draft, one, site, "miss", {"block": block}, **numbers)
