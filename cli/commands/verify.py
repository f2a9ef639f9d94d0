"""``adapters verify``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from cli.commands.merge import BaseView, ExpertLayout, Side, weighted
from cli.context import Session
from cli.rendering import emit, say


def verify(
    session: Session,
    output: Annotated[Path, Argument(metavar="DIR", help="The merged checkpoint.")],
    base: Annotated[str, Option(metavar="BASE", help="The base it was made of.")],
    adapter: Annotated[list[str], Option(metavar="ADAPTER[=WEIGHT]", help="Each adapter that was folded in.")],
    whole: Annotated[bool, Option("--all", help="Look at every element, not at a sample of each tensor.")] = False,
    embeddings: Annotated[Side | None, Option(help="As it was given to the merge.")] = None,
    expert_layout: Annotated[ExpertLayout | None, Option(help="As it was given to the merge.")] = None,
    base_view: Annotated[BaseView, Option(help="As it was given to the merge.")] = BaseView.bits16,
    base_is_residual: Annotated[bool, Option("--base-is-residual", help="As it was given to the merge.")] = False,
    allow: Annotated[list[str] | None, Option(metavar="RULE", help="As it was given to the merge.")] = None,
) -> None:
    """Prove that a merged checkpoint is its base and adapters, whoever merged it.

    Every tensor is there and nothing else; untouched ones are the base's bytes; changed ones are held against the sum in
    float64, element by element. Exit code 6: it is not this merge.

    Example: adapters verify ./merged --base ./llama --adapter my-lora@3 --adapter style-lora=0.5
    """
    from registry.plans.merge_plan import MergeOptions

    options = MergeOptions(
        embeddings=embeddings.value if embeddings else None,
        packing=expert_layout.value if expert_layout else None,
        base_view=base_view.value,
        base_is_residual=base_is_residual,
        allow=frozenset(allow or ()),
    )
    found = session.registry.verify(output, base, [weighted(text) for text in adapter], options=options, whole=whole)
    if session.json:
        emit(found.document())
    elif found.is_sound:
        say(found.sentence())
    found.require_sound(str(output))
