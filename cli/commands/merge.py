"""``adapters merge``"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter, Exit, Option

from cli.context import Session
from cli.exits import INTERRUPTED, usage
from cli.numerals import number
from cli.rendering import counted, emit, note, pairs, progress, say, size
from registry.plans.combining import LINEAR, METHODS, Blend

if TYPE_CHECKING:
    from registry.operations.merge_prepare import Prepared
    from registry.plans.merge_plan import MergeOptions
    from registry.plans.merging import PlannedTensor


class Dtype(StrEnum):
    keep = "keep"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"


class BaseView(StrEnum):
    bits16 = "16bit"
    nf4 = "nf4"


class Side(StrEnum):
    adapter = "adapter"
    base = "base"


class ExpertLayout(StrEnum):
    peft = "peft"
    unsloth = "unsloth"


STORED = {Dtype.bfloat16: "BF16", Dtype.float16: "F16", Dtype.float32: "F32"}
METHOD = Annotated[str, Option(metavar="METHOD", help=f"linear, or one in delta space: {', '.join(METHODS)}.")]
DENSITY = Annotated[
    float, Option(metavar="SHARE", min=0.0, max=1.0, help="The share of elements that ties, dare, della … keep.")
]
SEED = Annotated[int, Option(metavar="N", help="For the methods that draw at random.")]
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


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
    options = replace(
        _options(
            dtype, max_shard_size, embeddings, tokenizer, expert_layout, base_view, allow, residual=base_is_residual
        ),
        blend=blend_of(method, density, seed),
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
    _warn(session, done.prepared)
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


def weighted(text: str) -> tuple[str, float]:
    """``DIR=0.7``: what stands behind the last ``=`` is a weight if it is a number."""
    before, _, behind = text.rpartition("=")
    weight = number(behind)
    return (before, weight) if before and weight is not None else (text, 1.0)


def blend_of(method: str, density: float, seed: int) -> Blend:
    with usage():
        return Blend(method, density, seed)


def _options(
    dtype: Dtype,
    max_shard_size: str | None,
    embeddings: Side | None,
    tokenizer: Side | None,
    expert_layout: ExpertLayout | None,
    base_view: BaseView,
    allow: list[str] | None,
    *,
    residual: bool,
) -> MergeOptions:
    from registry.plans.merge_plan import MergeOptions

    return MergeOptions(
        dtype=STORED.get(dtype),
        max_shard_bytes=byte_count(max_shard_size, "--max-shard-size") if max_shard_size is not None else None,
        embeddings=embeddings.value if embeddings else None,
        packing=expert_layout.value if expert_layout else None,
        tokenizer=tokenizer.value if tokenizer else None,
        base_view=base_view.value,
        base_is_residual=residual,
        allow=frozenset(allow or ()),
    )


def byte_count(text: str, option: str) -> int:
    """``5GB`` → 5,000,000,000, as transformers counts."""
    amount = text.strip().upper().removesuffix("B")
    unit = amount[-1:] if amount[-1:] in "KMGT" else ""
    count = (number(amount.removesuffix(unit).strip()) or 0.0) * _UNITS[unit]
    if not 0 < count < 1e18:
        raise BadParameter(f"{text!r} is no size such as 5GB or 500MB", param_hint=option)
    return int(count)


def _show_plan(session: Session, prepared: Prepared) -> None:
    if session.json:
        emit(prepared.document())
        return
    _warn(session, prepared)
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


def _warn(session: Session, prepared: Prepared) -> None:
    for finding in prepared.findings:
        if finding.severity.value == "warning":
            note(f"warning: {finding.message} [{finding.rule}]", quiet=session.quiet, style="yellow")
