"""``adapters rerank``"""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from cli.combining import ENERGY, MAX_BYTES, NAME, OUTPUT, limits, require_place, show_combined
from cli.context import Session
from cli.rendering import emit, say
from cli.tensor_options import STORED, Dtype


def rerank(
    session: Session,
    subject: Annotated[str, Argument(metavar="REF|DIR", help="A version in the registry, or an adapter's directory.")],
    output: OUTPUT = None,
    name: NAME = None,
    rank: Annotated[str, Option(metavar="N|auto", help="At most N in each layer; auto: by --energy.")] = "auto",
    energy: ENERGY = None,
    max_bytes: MAX_BYTES = None,
    dtype: Annotated[
        Dtype, Option(help="The type of the result's factors; keep: the adapter's own, at least float32.")
    ] = Dtype.keep,
) -> None:
    """Compress an adapter to a lower rank.

    It is the best approximation there is, found from the factors alone.

    Example: adapters rerank my-lora --energy 0.999 -o ./smaller
    """
    require_place(output, name)
    done = session.registry.combine(
        [subject],
        output,
        name=name,
        dtype=STORED.get(dtype),
        kind="reranked-from",
        **limits(rank, energy, max_bytes, words=("auto",)),
    )
    if session.json:
        emit(done.document())
        return
    show_combined(done, truncated=True)
    say(f"{subject} → {', '.join(done.places)}")
