"""Tensors beyond the factors: saved modules, embeddings, copies of the base, and names that an engine does not know."""

from __future__ import annotations

from collections.abc import Iterator

from registry.checks.profile import Profile
from registry.checks.rule import Subject
from registry.checks.serving_features import kind, saved_names, use_of
from registry.checks.serving_words import Noticed, about, export, names_of, quoted, stance_of
from registry.domain.finding import Severity
from registry.variants.findings import some


def saved_modules(subject: Subject, profile: Profile) -> Iterator[Noticed]:
    names = [name for name in saved_names(subject) if name not in profile.modules_to_save]
    tensors = [spec.name for spec in subject.manifest.tensors if kind(spec.name, names) == "modules_to_save"]
    stance = stance_of(profile, "modules_to_save", declared=bool(names), present=bool(tensors))
    if stance is not None:
        yield Noticed(
            stance.severity,
            f"modules_to_save has {some(names)}, which {profile.title} {stance.verb}"
            f"{stance.said(name=tensors[0] if tensors else '…', names=names)}",
            "modules_to_save",
            profile.way_out,
        )


def suffix(subject: Subject, profile: Profile) -> Iterator[Noticed]:
    """The tensors that no rule about a feature speaks of."""
    spoken = {
        *profile.refuses_tensors,
        *profile.ignores,
        *profile.doubtful,
        *(feature for feature in profile.refuses_config if use_of(subject, feature).field),
        "modules_to_save",
        "base_copy",
    } - {"norm", "other"}
    saved = (*saved_names(subject), *profile.modules_to_save)
    rest = [(spec.name, kind(spec.name, saved)) for spec in subject.manifest.tensors]
    lost = [name for name, feature in rest if feature in {"norm", "other"} and feature in profile.ignores]
    strange = [
        name
        for name, feature in rest
        if profile.suffixes and not name.endswith(profile.suffixes) and feature not in spoken and name not in lost
    ]
    if strange:
        yield Noticed(
            Severity.ERROR,
            f"the file has {some(strange)}, which {profile.title} refuses"
            f"{quoted(profile.messages.get('suffix', ''), name=strange[0])}",
            strange[0],
            profile.way_out,
        )
    if lost:
        why = profile.ignores[kind(lost[0], saved)]
        yield Noticed(
            Severity.ERROR,
            f"the file has {some(lost)}, which {profile.title} leaves out without a word: {why}",
            lost[0],
            profile.way_out,
        )


def embeddings(subject: Subject, profile: Profile) -> Iterator[Noticed]:
    yield from about("embedding_lora", "whole_embedding")(subject, profile)
    base = subject.base
    if base is None:
        return
    for spec in use_of(subject, "embedding_lora").tensors:
        rows = spec.shape[-1] if spec.name.endswith("_A") and spec.shape else base.vocabulary
        if "vocabulary" in profile.messages and base.vocabulary is not None and rows != base.vocabulary:
            words = quoted(profile.messages["vocabulary"], rows=rows, vocabulary=base.vocabulary)
            yield Noticed(
                Severity.ERROR,
                f"{spec.name} is for {rows:,} tokens and the base has {base.vocabulary:,}{words}",
                spec.name,
                profile.way_out,
            )
    heads = [target.path for target in subject.manifest.targets if target.name == "lm_head"]
    if heads and base.is_tied and "tied" in profile.messages:
        yield Noticed(
            Severity.ERROR,
            f"{heads[0]} is adapted, and the base ties it to the embedding{quoted(profile.messages['tied'])}",
            heads[0],
            profile.way_out,
        )


def base_layer(subject: Subject, profile: Profile) -> Iterator[Noticed]:
    """PEFT saves the embedding that a LoRA wraps along with it. Unless it was resized or trained it is the base's own."""
    use = use_of(subject, "base_copy")
    stance = stance_of(profile, "base_copy", declared=False, present=use.is_present)
    if stance is None:
        return
    severity, same = stance.severity, ""
    if "base_copy" in profile.ignores:
        vocabulary = subject.base.vocabulary if subject.base is not None else None
        if vocabulary is None:
            severity = Severity.WARNING
        elif all(spec.shape[:1] == (vocabulary,) for spec in use.tensors):
            severity, same = Severity.INFO, "; it has as many rows as the base's"
    yield Noticed(
        severity,
        f"the file has {names_of(use.tensors)}, which {profile.title} {stance.verb}{stance.said(name=use.first)}{same}",
        use.first,
        f"{export(profile)} drops the copy if it is the base's own; if it was resized or trained, {profile.way_out}",
    )
