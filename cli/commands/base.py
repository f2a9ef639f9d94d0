"""``adapters base add|list|show|alias|unalias``"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from cli.context import Session
from cli.rendering import counted, emit, note, pairs, say, table

if TYPE_CHECKING:
    from registry.domain.base_model import BaseModelSpec, StoredBase

_ID = Argument(metavar="ID[@REV]", help="A repository such as meta-llama/Llama-3.1-8B.")


def add(
    session: Session,
    source: Annotated[str, Argument(metavar="DIR|ID[@REV]", help="A checkpoint's directory, or a Hub repository.")],
    name: Annotated[str | None, Option(metavar="ID[@REV]", help="What it is; needed for most directories.")] = None,
    hash_weights: Annotated[
        bool, Option("--hash-weights", help="Read every byte, to tell bases of equal shapes apart.")
    ] = False,
) -> None:
    """Make a base model known, without its weights.

    Pushes of its adapters are checked against it from now on.

    Example: adapters base add ./llama-3.1-8b --name meta-llama/Llama-3.1-8B
    """
    stored, spec, created = session.registry.add_base(source, name=name, hash_weights=hash_weights)
    if session.json:
        emit({**_document(stored, spec), "created": created})
        return
    say(f"{_shown(stored)}  {counted(len(spec.modules), 'module')}  {spec.fingerprint}")
    if not created:
        note("the same was known already; nothing was stored", quiet=session.quiet)


def list_(session: Session) -> None:
    """The base models that are known, and other names for them.

    Example: adapters base list
    """
    bases = session.registry.bases()
    aliases = session.registry.base_aliases().names
    others: dict[str, list[str]] = {}
    for alias, canonical in aliases.items():
        others.setdefault(canonical.lower(), []).append(alias)
    if session.json:
        emit(
            {
                "bases": [{"id": base.id.id, "revision": base.id.revision, "digest": base.digest} for base in bases],
                "aliases": aliases,
            }
        )
        return
    unknown = set(aliases.values()) - {base.id.id for base in bases}
    rows = [(base.id.id, base.id.revision, others.get((base.id.id or "").lower())) for base in bases]
    rows += [(name, "not added yet", others[name.lower()]) for name in sorted(unknown)]
    if rows:
        table(["base", "revision", "other names"], rows, shrink=["revision", "other names"])
    else:
        note("no base models yet: adapters base add DIR|ID", quiet=session.quiet)


def show(session: Session, base: Annotated[str, _ID]) -> None:
    """What is known of a base model.

    Example: adapters base show meta-llama/Llama-3.1-8B
    """
    stored, spec = session.registry.base(base)
    if session.json:
        modules = [
            {"path": each.path, "kind": each.kind.value, "shape": each.shape, "bias": each.has_bias}
            for each in spec.modules
        ]
        emit({**_document(stored, spec), "modules": modules})
        return
    kinds: dict[str, int] = {}
    for module in spec.modules:
        kinds[module.kind.value] = kinds.get(module.kind.value, 0) + 1
    say(_shown(stored), "bold")
    pairs(
        [
            ("model type", spec.model_type),
            ("architectures", spec.architectures),
            ("modules", ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))),
            ("vocabulary", spec.vocabulary),
            ("tied embeddings", "yes" if spec.is_tied else None),
            ("quantized", "yes" if spec.is_quantized else None),
            ("fingerprint", spec.fingerprint),
            ("weights", spec.weights_fingerprint),
        ]
    )


def alias(
    session: Session,
    name: Annotated[str, Argument(metavar="NAME", help="The other name: a mirror, a copy, a quantised form.")],
    canonical: Annotated[str, Argument(metavar="ID", help="The base that it is.")],
) -> None:
    """Say that two names are one base model.

    Checks and searches take them for the same.

    Example: adapters base alias acme/llama-mirror meta-llama/Llama-3.1-8B
    """
    known = session.registry.base_aliases().canonical(name)
    before = known if known != name else None
    changed = session.registry.alias_base(name, canonical)
    if session.json:
        emit({"name": name, "canonical": canonical, "changed": changed, "previous": before})
    else:
        say(f"{name} is {canonical}{f', and no longer {before}' if before and changed else ''}")


def unalias(session: Session, name: Annotated[str, Argument(metavar="NAME", help="The other name.")]) -> None:
    """Take such a name back.

    Example: adapters base unalias acme/llama-mirror
    """
    changed = session.registry.alias_base(name, None)
    if session.json:
        emit({"name": name, "canonical": None, "changed": changed})
    else:
        say(f"{name} stands for itself again" if changed else f"{name} stood for itself already")


def _document(stored: StoredBase, spec: BaseModelSpec) -> dict[str, object]:
    return {
        "id": stored.id.id,
        "revision": stored.id.revision,
        "digest": stored.digest,
        "model_type": spec.model_type,
        "architectures": list(spec.architectures),
        "module_count": len(spec.modules),
        "vocabulary": spec.vocabulary,
        "tied": spec.is_tied,
        "quantized": spec.is_quantized,
        "fingerprint": spec.fingerprint,
        "weights_fingerprint": spec.weights_fingerprint,
    }


def _shown(stored: StoredBase) -> str:
    return f"{stored.id.id}{f'@{stored.id.revision}' if stored.id.revision else ''}"


VERBS: dict[str, Callable[..., None]] = {"add": add, "list": list_, "show": show, "alias": alias, "unalias": unalias}
