"""``adapters show``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from typer import Argument

from cli.context import Session
from cli.rendering import emit, note, pairs, say, size, table

if TYPE_CHECKING:
    from registry.operations.show import Details


def show(
    session: Session,
    reference: Annotated[str, Argument(metavar="REF", help="[ns/]name, name@3, name:alias or sha256:…")],
) -> None:
    """Everything recorded about one version.

    Example: adapters show my-lora@3 --json
    """
    details = session.registry.show(reference)
    if details.version.yanked is not None:
        reason = f"warning: {details.version.reference} is yanked: {details.version.yanked}"
        note(reason, quiet=session.quiet, style="yellow")
    if session.json:
        emit(details.document())
    else:
        _print(details)


def _print(details: Details) -> None:
    version, manifest = details.version, details.manifest
    base = manifest.base_model
    ranks = sorted({target.rank for target in manifest.targets if target.rank is not None})
    scalings = sorted({target.scaling for target in manifest.targets if target.scaling is not None})
    say(version.reference, "bold")
    pairs(
        [
            ("digest", version.digest),
            ("created", version.created_at),
            ("note", version.note),
            ("aliases", version.aliases),
            ("tags", version.tags),
            ("yanked", version.yanked),
            ("base", f"{base.id or 'unknown'}{f' @ {base.revision}' if base.revision else ''}"),
            ("base as written", base.raw if base.raw != base.id else None),
            ("type", f"{manifest.peft_type} ({manifest.variant})"),
            ("task", manifest.task_type),
            ("rank", ranks),
            ("scaling", scalings),
            ("targets", manifest.target_modules),
            ("layers", _ranges(manifest.layers)),
            ("saved whole", manifest.extra_modules),
            ("named, not found", manifest.absent_targets),
            ("base changed by", manifest.base_change),
            ("parameters", f"{manifest.parameters:,} ({manifest.dtype})"),
            ("tensor identity", manifest.tensor_identity),
            ("training", manifest.training),
        ]
    )
    say("")
    table(
        ["file", "size", "digest"],
        [(entry.path, size(entry.size), entry.digest.short) for entry in manifest.files],
        right=["size"],
    )
    if details.evaluations:
        say("")
        table(
            ["task", "metric", "value", "±", "n", "source"],
            [(each.task, each.metric, each.value, each.stderr, each.n, each.source) for each in details.evaluations],
            right=["value", "±", "n"],
        )
    if manifest.lineage:
        say("")
        table(["parent", "kind", "weight"], [(e.reference or e.parent, e.kind, e.weight) for e in manifest.lineage])
    if details.children:
        say("")
        table(["made from it"], [(child.reference,) for child in details.children])
    for finding in version.findings:
        say(f"{finding.severity.value}: {finding.message} [{finding.rule}]", "yellow")


def _ranges(numbers: list[int]) -> str:
    """0, 1, 2, 5 → ``0–2, 5``."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in spans)
