"""Weights and biases that a vector multiplies or is added to: IA3, BEFT."""

from __future__ import annotations

from registry.plans.merge_draft import Draft, Ingredient, slabs
from registry.plans.merge_sites import Site, add_bias_change, add_change, fit, required
from registry.plans.merging import Change, Factor
from registry.variants.modules import Parts


def add_ia3(draft: Draft, one: Ingredient, site: Site, parts: Parts) -> None:
    """A vector of a feed-forward layer multiplies its inputs, any other the outputs and their bias. The vectors of linear layers
    show which, (1, in) or (out, 1); those of convolutions do not, (1, in or out, 1…), but the config does."""
    found = required(draft, site, parts, "ia3_l")
    if found is None:
        return
    (vector,) = found
    ones = (1,) * len(site.kernel)
    of_outputs = (1, site.outputs, *ones) if site.kernel else (site.outputs, 1)
    groups = _groups(site, vector.elements)
    of_inputs = (1, groups * site.inputs, *ones)
    if not fit(draft, site, [(vector, [*dict.fromkeys((of_outputs, of_inputs))])]):
        return
    feeds = _is_feedforward(one, site.path) if vector.shape == of_outputs == of_inputs else vector.shape == of_inputs
    if feeds is None:
        draft.refuse(
            "feedforward-unknown",
            f"{vector.name} fits the inputs of {site.path} and its outputs, and feedforward_modules is no list of names",
            where="feedforward_modules",
            target=site.path,
            fix="list the names of the modules in feedforward_modules",
        )
    elif not feeds:
        add_change(draft, one, site, "ia3_outputs", {"vector": vector})
        add_bias_change(draft, one, site, "ia3_outputs", {"vector": vector})
    elif groups == 1:
        add_change(draft, one, site, "ia3_inputs", {"vector": vector})
    else:
        inputs = slabs(groups * site.inputs, groups)
        for rows, columns in zip(slabs(site.outputs, groups), inputs, strict=True):
            factors = {"vector": Factor(vector, rows=columns)}
            draft.change(site.rows[0].name, Change(one.number, "ia3_inputs", factors, {}, rows.start, rows.stop))


def _groups(site: Site, count: int) -> int:
    """Of a convolution with so many inputs, whose weight has those of one group."""
    groups = count // site.inputs if site.kernel and count % site.inputs == 0 else 1
    return groups if groups and site.outputs % groups == 0 else 1


def _is_feedforward(one: Ingredient, path: str) -> bool | None:
    """PEFT's rule: the module's path ends with one of the names; None where that is a regular expression, or not there."""
    asked = one.config.names("feedforward_modules")
    return path.endswith(asked or ("\0",)) if isinstance(asked, tuple) else None


def add_beft(draft: Draft, one: Ingredient, site: Site, parts: Parts) -> None:
    found = required(draft, site, parts, "beft_bias")
    if found is None or not fit(draft, site, [(found[0], [(1, site.outputs)])]):
        return
    (bias,) = found
    if not site.bias:
        draft.refuse(
            "bias-without-base",
            f"{bias.name} changes a bias, and {site.path} in the base has none",
            where=bias.name,
            target=site.path,
            fix="serve it unmerged with PEFT",
        )
    else:
        add_bias_change(draft, one, site, "bias", {"bias": bias}, scaling=one.weight)
