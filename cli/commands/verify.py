"""``adapters verify``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, BadParameter, Option

from cli.context import Session
from cli.rendering import emit, note, say
from cli.tensor_options import DENSITY, METHOD, SEED, BaseView, ExpertLayout, Side, blend_of, weighted
from registry.plans.combining import LINEAR


def verify(
    session: Session,
    output: Annotated[Path, Argument(metavar="DIR", help="The merged checkpoint.")],
    base: Annotated[str, Option(metavar="BASE", help="The base it was made of.")],
    adapter: Annotated[list[str], Option(metavar="ADAPTER[=WEIGHT]", help="Each adapter that was folded in.")],
    sample: Annotated[
        str | None,
        Option(metavar="N|all", help="How many pieces of each tensor are looked at, spread evenly. Default: 3."),
    ] = None,
    whole: Annotated[bool, Option("--all", help="Look at every element, as --sample all does.")] = False,
    embeddings: Annotated[Side | None, Option(help="As it was given to the merge.")] = None,
    expert_layout: Annotated[ExpertLayout | None, Option(help="As it was given to the merge.")] = None,
    base_view: Annotated[BaseView, Option(help="As it was given to the merge.")] = BaseView.bits16,
    base_is_residual: Annotated[bool, Option("--base-is-residual", help="As it was given to the merge.")] = False,
    method: METHOD = LINEAR,
    density: DENSITY = 0.5,
    seed: SEED = 0,
    allow: Annotated[list[str] | None, Option(metavar="RULE", help="As it was given to the merge.")] = None,
) -> None:
    """Prove that a merged checkpoint is its base and adapters.

    Whoever merged it.

    Every tensor is there and nothing else; untouched ones are the base's bytes; changed ones are held against the sum in
    float64, element by element; the config is the base's but for what the merge changes, and no other weights and no code lie
    beside. Exit code 6: it is not this merge.

    Example: adapters verify ./merged --base ./llama --adapter my-lora@3 --adapter style-lora=0.5
    """
    from registry.plans.merge_plan import MergeOptions

    options = MergeOptions(
        embeddings=embeddings,
        packing=expert_layout,
        base_view=base_view,
        base_is_residual=base_is_residual,
        blend=blend_of(method, density, seed),
        allow=frozenset(allow or ()),
    )
    asked = [weighted(text) for text in adapter]
    whole = whole or sample == "all"
    samples = _pieces(sample) if sample is not None and not whole else None
    found = session.registry.verify(output, base, asked, options=options, whole=whole, samples=samples)
    if session.json:
        emit(found.document())
    elif found.is_sound:
        say(found.sentence())
        note(found.figures(), quiet=session.quiet)
    found.require_sound(str(output))


def _pieces(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < len(text) < 10 or int(text) < 1:
        raise BadParameter(f"{text!r} is neither a number from 1 on nor all", param_hint="--sample")
    return int(text)
