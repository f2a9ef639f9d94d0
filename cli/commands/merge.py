"""``adapters merge``"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter, Exit, Option

from cli.context import Session
from cli.exits import INTERRUPTED
from cli.rendering import counted, emit, note, pairs, progress, say, size, warn
from cli.tensor_options import (
    DENSITY,
    METHOD,
    SEED,
    STORED,
    BaseView,
    Dtype,
    ExpertLayout,
    Side,
    blend_of,
    byte_count,
    weighted,
)
from registry.plans.combining import LINEAR

if TYPE_CHECKING:
    from registry.operations.merge_prepare import Prepared
    from registry.plans.merging import PlannedTensor


def merge(
    session: Session,
    base: Annotated[str, Argument(metavar="BASE", help="The base: a checkpoint's directory, or hf://OWNER/NAME@REV.")],
    adapters: Annotated[
        list[str],
        Argument(metavar="ADAPTER[=WEIGHT]", help="Directories, references or hf://OWNER/NAME@REV; a weight is 1."),
    ],
    output: Annotated[
        str | None, Option("--output", "-o", metavar="DIR", help="A directory that is empty or not there.")
    ] = None,
    device: Annotated[str, Option(metavar="auto|cpu|cuda[:N]", help="Where the sums are computed.")] = "auto",
    dtype: Annotated[Dtype, Option(help="The type of every floating tensor of the output.")] = Dtype.keep,
    max_shard_size: Annotated[
        str | None, Option(metavar="SIZE", help="Lay the weights into new files: 5GB. Default: as the base has them.")
    ] = None,
    base_view: Annotated[
        BaseView, Option(help="nf4: the base as QLoRA saw it, rounded to 4 bits and back.")
    ] = BaseView.bits16,
    embeddings: Annotated[
        Side | None, Option(help="Whose embeddings to take where the adapter's copy differs from the base's.")
    ] = None,
    tokenizer: Annotated[
        Side | None, Option(help="Whose tokenizer to take. Default: the adapter's where the vocabulary changed.")
    ] = None,
    expert_layout: Annotated[
        ExpertLayout | None, Option(help="How lora_B of fused experts is packed, where the file does not say.")
    ] = None,
    base_is_residual: Annotated[
        bool, Option("--base-is-residual", help="BASE is what pissa, olora, corda or lora_ga left of the base.")
    ] = False,
    method: METHOD = LINEAR,
    density: DENSITY = 0.5,
    seed: SEED = 0,
    allow: Annotated[
        list[str] | None, Option(metavar="RULE", help="Merge in spite of this finding: partial, base-id, …")
    ] = None,
    name: Annotated[
        str | None, Option(metavar="NAME", help="Also store the result in the registry, with its lineage.")
    ] = None,
    plan: Annotated[bool, Option("--plan", help="Say what would be done, and stop.")] = False,
    resume: Annotated[bool, Option("--resume", help="Go on where the same merge was interrupted.")] = False,
) -> None:
    """Fold adapters into their base: one whole checkpoint.

    One pass over the files, in constant memory: what no adapter touches is copied, everything else computed in float32 and
    rounded once. A sample is read back and proven before the directory appears. Several adapters with weights are
    folded in together.

    Exit code 6: no merged weights can do what base and adapters do; every reason is said, and nothing was written.

    Example: adapters merge ./llama my-lora:production style-lora=0.5 -o ./merged
    """
    from registry.plans.merge_plan import MergeOptions

    options = MergeOptions(
        dtype=STORED.get(dtype),
        max_shard_bytes=byte_count(max_shard_size, "--max-shard-size") if max_shard_size is not None else None,
        embeddings=embeddings,
        packing=expert_layout,
        tokenizer=tokenizer,
        base_view=base_view,
        base_is_residual=base_is_residual,
        blend=blend_of(method, density, seed),
        allow=frozenset(allow or ()),
    )
    asked = [weighted(text) for text in adapters]
    if plan:
        prepared = session.registry.merge_plan(base, asked, options=options, device=device)
        _show_plan(session, prepared)
        return
    if output is None or not output.strip():  # an empty text would be the directory one is in
        raise BadParameter("say where to: -o DIR", param_hint="--output")
    with _interrupted(output), progress("merge", silent=session.quiet or session.json) as meter:
        done = session.registry.merge(
            base,
            asked,
            output,
            options=options,
            device=device,
            resume=resume,
            name=name,
            expect=meter.expect,
            progress=meter,
        )
    if session.json:
        emit(done.document())
        return
    warn(done.prepared.findings, quiet=session.quiet)
    say(done.verification.sentence())
    note(done.verification.figures(), quiet=session.quiet)
    stored = f", stored as {done.version.reference}" if done.version is not None else ""
    say(f"{', '.join(adapters)} → {output}{stored}")


@contextmanager
def _interrupted(output: str) -> Iterator[None]:
    """What was finished lies in a hidden directory: where, how large, and what may be done with it."""
    try:
        yield
    except KeyboardInterrupt:
        from registry.operations.workplace import left_behind

        place, there = left_behind(Path(output))
        if not there:
            raise
        note(
            f"interrupted; nothing that loads was left behind, but {place} keeps what was finished, {size(there)}: "
            f"the same command with --resume goes on, rm -r {shlex.quote(str(place))} removes it",
            quiet=False,
            style="",
        )
        raise Exit(INTERRUPTED) from None


def _show_plan(session: Session, prepared: Prepared) -> None:
    if session.json:
        emit(prepared.document())
        return
    warn(prepared.findings, quiet=session.quiet)
    plan = prepared.plan
    copied = [one for one in plan.tensors if one.is_copy]
    touched = {one.name for one in plan.changed}
    converted = [one for one in plan.tensors if not one.is_copy and one.name not in touched]
    through_nf4 = [one for one in plan.tensors if one.origin.is_seen]
    pairs(
        [
            ("base", prepared.identity.id.id or prepared.identity.id.raw),
            *(("adapter", f"{one.name} × {one.weight:g} ({one.variant})") for one in prepared.recipe.shares),
            ("base view", f"nf4, {counted(len(through_nf4), 'tensor')}" if through_nf4 else None),
            ("changed", _amount(plan.changed)),
            ("converted", _amount(converted) if converted else None),
            ("copied", _amount(copied)),
            ("output", f"{size(plan.bytes)} in {counted(len(plan.shards), 'file')}"),
            ("peak memory", f"about {size(prepared.peak_memory)}"),
            ("config", "changed" if plan.config is not None else "as it is"),
        ]
    )


def _amount(tensors: Sequence[PlannedTensor]) -> str:
    return f"{counted(len(tensors), 'tensor')}, {size(sum(one.bytes for one in tensors))}"
