"""``adapters rerank``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, BadParameter, Option

from cli.commands.combine import limits, show_combined
from cli.commands.merge import STORED, Dtype
from cli.context import Session
from cli.rendering import emit, say


def rerank(
    session: Session,
    subject: Annotated[str, Argument(metavar="REF|DIR", help="A version in the registry, or an adapter's directory.")],
    output: Annotated[
        Path | None, Option("--output", "-o", metavar="DIR", help="A directory that is empty or not there.")
    ] = None,
    name: Annotated[str | None, Option(metavar="NAME", help="Store the result as the next version of NAME.")] = None,
    rank: Annotated[str, Option(metavar="N|auto", help="At most N in each layer; auto: by --energy.")] = "auto",
    energy: Annotated[
        float | None, Option(metavar="SHARE", help="Keep the smallest rank with this share of Σσ² (auto: 0.99).")
    ] = None,
    max_bytes: Annotated[
        str | None, Option(metavar="SIZE", help="Choose the ranks so that the file has at most so much: 20MB.")
    ] = None,
    dtype: Annotated[Dtype, Option(help="The type of the result's factors; keep: the adapter's own.")] = Dtype.keep,
) -> None:
    """Compress an adapter to a lower rank.

    It is the best approximation there is, found from the factors alone.

    Example: adapters rerank my-lora --energy 0.999 -o ./smaller
    """
    if output is None and name is None:
        raise BadParameter("say where to: -o DIR, or --name NAME", param_hint="--output")
    done = session.registry.combine(
        [subject],
        output,
        name=name,
        dtype=STORED.get(dtype),
        kind="reranked-from",
        **limits(rank, energy, max_bytes),
    )
    if session.json:
        emit(done.document())
        return
    show_combined(done, truncated=True)
    places = [str(place) for place in (output, done.version.reference if done.version else None) if place is not None]
    say(f"{subject} → {', '.join(places)}")
