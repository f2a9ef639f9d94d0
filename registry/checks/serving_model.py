"""Method, config and modules: what an engine has to know before it looks at any tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from registry.checks.profile import Profile, parse_version
from registry.checks.rule import Subject
from registry.checks.serving_features import use_of
from registry.checks.serving_words import Noticed, export, quoted
from registry.domain.finding import Severity
from registry.variants.findings import some


def version(_subject: Subject, profile: Profile) -> Iterator[Noticed]:
    if profile.asked is None:
        return
    if profile.read is None or parse_version(profile.asked) > parse_version(profile.read):
        read = f"up to {profile.read}" if profile.read else "as it stood on its main branch"
        yield Noticed(
            Severity.INFO,
            f"the source of {profile.title} was read {read}, so of {profile.asked} less is known",
            profile.name,
            "load the adapter in the engine itself once",
        )


def method(subject: Subject, profile: Profile) -> Iterator[Noticed]:
    found = subject.manifest.peft_type
    if profile.peft_types and found not in profile.peft_types:
        served = "only LORA" if profile.peft_types == ("LORA",) else f"{len(profile.peft_types)} methods without it"
        yield Noticed(
            Severity.ERROR,
            f"the method is {found}; {profile.title} knows {served}",
            "peft_type",
            _way_out_of(found, profile),
        )


def _way_out_of(method: str, profile: Profile) -> str:
    if profile.engine == "peft":
        return "use the PEFT release that wrote the adapter"
    return f"if {method} can be merged, {profile.way_out}; otherwise serve it with PEFT"


def config(subject: Subject, profile: Profile) -> Iterator[Noticed]:
    missing = [field for field in profile.requires if field not in subject.config.raw]
    if missing:
        yield Noticed(
            Severity.ERROR,
            f"adapter_config.json lacks {some(missing)}; PEFT takes its default and {profile.title} fails"
            f"{quoted(profile.messages.get('requires', ''), names=set(missing))}",
            missing[0],
            f"write the default into the config, as {export(profile)} does",
        )


def initialization(subject: Subject, profile: Profile) -> Iterator[Noticed]:
    value = subject.config.raw.get("init_lora_weights")
    if not isinstance(value, str):
        return
    lower = value.lower()
    changes_base = lower.startswith(("pissa", "olora", "corda", "loftq", "lora_ga"))
    if profile.initializations and lower not in profile.initializations:
        words = quoted(profile.messages.get("initialization", ""), value=repr(value))
        severity, message = Severity.ERROR, f"init_lora_weights is {value!r:.60}, which {profile.title} refuses{words}"
    elif not changes_base or (profile.recomputes_base and lower in {"pissa", "olora"}):
        return
    elif profile.recomputes_base or lower.startswith("lora_ga"):
        severity = Severity.WARNING
        message = (
            f"training from {value!r:.60} changed the base, and {profile.title} cannot do that again when it loads"
        )
    else:
        severity = Severity.ERROR
        message = f"training from {value!r:.60} changed the base, and {profile.title} serves on the base as published"
    yield Noticed(
        severity,
        message,
        "init_lora_weights",
        "merge it into the base that training quantised, and serve that"
        if lower.startswith("loftq")
        else "convert it to a plain LoRA with PEFT's path_initial_model_for_weight_conversion",
    )


def targets(subject: Subject, profile: Profile) -> Iterator[Noticed]:
    if profile.targets and not subject.config.truthy("target_parameters"):
        embeddings = {spec.name.rpartition(".lora_")[0] for spec in use_of(subject, "embedding_lora").tensors}
        strange = [
            target
            for target in subject.manifest.targets
            if target.name not in profile.targets and not any(path.endswith(target.path) for path in embeddings)
        ]
        if strange:
            words = profile.messages.get("target", "")
            names = sorted({target.name for target in strange})
            yield Noticed(
                Severity.ERROR,
                f"{some(names)} {'is' if len(names) == 1 else 'are'} adapted, which {profile.title} "
                f"{'refuses' if words else 'leaves out without a word'}{quoted(words, name=strange[0].path)}",
                strange[0].path,
                profile.way_out,
            )
    if profile.needs_every_layer:
        yield from _missing_layers(subject, profile)


def _missing_layers(subject: Subject, profile: Profile) -> Iterator[Noticed]:
    """Engines that stack the layers serve a kind of module in all of them or in none. Without a base, the layers are
    those up to the highest that is adapted."""
    adapted = _layers_by_name(target.path for target in subject.manifest.targets)
    known = _layers_by_name(module.path for module in subject.base.modules) if subject.base is not None else {}
    highest = max((layer for layers in adapted.values() for layer in layers), default=-1)
    for name, layers in sorted(adapted.items()):
        missing = sorted(known.get(name, set(range(highest + 1))) - layers) if layers else []
        if missing:
            yield Noticed(
                Severity.ERROR if name in known else Severity.WARNING,
                f"{name} is adapted, but not in layer {some([str(layer) for layer in missing])}; {profile.title} then leaves "
                "it out in all layers, without a word",
                name,
                "merge it into the base, or train it on every layer",
            )


def _layers_by_name(paths: Iterable[str]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for path in paths:
        parts = path.split(".")
        number = next((int(part) for part in parts if part.isascii() and part.isdecimal() and len(part) < 6), None)
        found.setdefault(parts[-1], set()).update(() if number is None else (number,))
    return found


def architecture(subject: Subject, profile: Profile) -> Iterator[Noticed]:
    if not profile.architectures:
        return
    found = subject.base.model_type if subject.base is not None else None
    if found in profile.architectures:
        return
    known = ", ".join(profile.architectures)
    if found is None:
        message = f"{profile.title} converts adapters for {known}; whether the base is one is not known here"
        yield Noticed(Severity.INFO, message, "base_model_name_or_path", "check with --base")
    else:
        yield Noticed(
            Severity.ERROR,
            f"the base is of type {found}; {profile.title} converts adapters for {known}"
            f"{quoted(profile.messages.get('architecture', ''))}",
            "base_model_name_or_path",
            "convert the adapter to GGUF with llama.cpp and import the file",
        )
