"""``adapters extract``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from cli.context import Session
from cli.exits import usage
from cli.rendering import counted, emit, say, table
from cli.tensor_options import STORED, Dtype
from registry.plans.combining import require_share


def extract(
    session: Session,
    base: Annotated[str, Option(metavar="BASE", help="The base: a checkpoint's directory, or hf://OWNER/NAME@REV.")],
    tuned: Annotated[str, Option(metavar="MODEL", help="What was tuned from it, in full.")],
    rank: Annotated[int, Option(metavar="N", min=1, help="At most N in each layer.")],
    output: Annotated[Path, Option("--output", "-o", metavar="DIR", help="A directory that is empty or not there.")],
    energy: Annotated[
        float | None,
        Option(metavar="SHARE", help="Keep the smallest rank with this share of the change."),
    ] = None,
    dtype: Annotated[Dtype, Option(help="The type of the factors; keep: float32.")] = Dtype.keep,
    seed: Annotated[int, Option(metavar="N", help="For the random vectors of the decomposition.")] = 0,
) -> None:
    """Find the LoRA in a full fine-tune.

    It has of every matrix the best part of that rank of what training added.

    Norms and biases that changed are saved whole. What each layer misses is said.

    Example: adapters extract --base ./llama --tuned ./llama-support --rank 32 -o ./support-lora
    """
    with usage():
        require_share("energy", energy)
    stored = STORED.get(dtype, "F32")
    done = session.registry.extract(base, tuned, output, rank=rank, energy=energy, dtype=stored, seed=seed)
    if session.json:
        emit(done.document())
        return
    table(
        ("layer", "rank", "‖Δ‖", "missed"),
        [(one.path, one.rank, one.norm, f"{one.error / one.norm:.2%}") for one in done.layers],
        right=("rank", "‖Δ‖", "missed"),
        shrink=("layer",),
    )
    saved = f", {counted(len(done.whole), 'tensor')} saved whole" if done.whole else ""
    say(
        f"{tuned} − {base} → {output}: {counted(len(done.layers), 'layer')}{saved}, {done.error:.2%} of the change missed"
    )
