"""Will this engine serve the adapter, and as PEFT would? Every reason against it at once.

Each rule holds one side of the adapter against what the :class:`~registry.checks.profile.Profile` says of the engine. An
error is a refusal, or an answer other than PEFT's that nobody would notice; a warning is what may be one, by base model or
by release. Findings quote the engine's own words.

Laws: without a profile a rule is silent; a plain LoRA of rank 8 has no error with any engine; whatever the config holds,
no rule raises.
"""

from __future__ import annotations

from collections.abc import Iterator

from registry.checks.rule import Rule, Subject
from registry.checks.serving_model import architecture, config, initialization, method, targets, version
from registry.checks.serving_scale import patterns, rank, rslora
from registry.checks.serving_tensors import base_layer, embeddings, saved_modules, suffix
from registry.checks.serving_words import Check, about
from registry.domain.finding import Finding, Severity


def _rule(
    id: str, reason: str, fix: str, check: Check, *, severity: Severity = Severity.ERROR, any_method: bool = False
) -> Rule:
    """Silent without a profile, and for methods other than LORA unless the rule is about them too."""

    def run(subject: Subject) -> Iterator[Finding]:
        if subject.profile is not None and (any_method or subject.manifest.peft_type == "LORA"):
            for noticed in check(subject, subject.profile):
                yield Finding(id, *noticed)

    return Rule(id, severity, reason, fix, run)


SERVING_RULES: tuple[Rule, ...] = (
    _rule(
        "serve-version",
        "engines change from release to release, and what is known of one was read in its source",
        "load the adapter in the engine itself once",
        version,
        severity=Severity.INFO,
        any_method=True,
    ),
    _rule(
        "serve-peft-type",
        "serving engines know LORA and no other PEFT method",
        "merge the adapter where its method allows, or serve it with PEFT",
        method,
        any_method=True,
    ),
    _rule(
        "serve-config",
        "engines read some fields that PEFT has defaults for, and fail without them",
        "write the field into adapter_config.json",
        config,
    ),
    _rule(
        "serve-rank",
        "engines reserve room for a highest rank, and some kernels only know certain ranks",
        "start the engine with a higher --max-lora-rank, or pad or reduce the rank",
        rank,
    ),
    _rule(
        "serve-patterns-ignored",
        "many engines scale all modules by one lora_alpha and r, whatever rank_pattern and alpha_pattern say",
        "export for the engine: the scale is folded into B and ranks are padded",
        patterns,
    ),
    _rule(
        "serve-rslora-ignored",
        "some engines divide alpha by r where rsLoRA divides by its root",
        "export for the engine: alpha is adjusted or the scale is folded into B",
        rslora,
    ),
    _rule(
        "serve-dora",
        "DoRA rescales the merged weight, which few engines do while serving",
        "merge the adapter into its base",
        about("dora"),
    ),
    _rule(
        "serve-bias",
        "trained biases replace the base's own, and engines serve many adapters on one base",
        "merge the adapter into its base",
        about("bias"),
    ),
    _rule(
        "serve-lora-bias",
        "lora_bias adds a bias to lora_B, which engines refuse or leave out",
        "merge the adapter into its base",
        about("lora_bias"),
    ),
    _rule(
        "serve-modules-to-save",
        "whole modules in the adapter replace the base's own, which engines refuse or leave out",
        "merge the adapter into its base",
        saved_modules,
    ),
    _rule(
        "serve-embeddings",
        "adapted or resized embeddings and heads are served by few engines, and only with the base's vocabulary",
        "merge the adapter into its base",
        embeddings,
    ),
    _rule(
        "serve-base-layer",
        "a copy of the base's embedding in the file is refused or skipped, which loses a resized or trained one",
        "export for the engine if the copy is the base's own, otherwise merge",
        base_layer,
    ),
    _rule(
        "serve-trainable-tokens",
        "rows of the embedding that were trained alone are unknown to most engines",
        "merge the adapter into its base",
        about("trainable_tokens"),
    ),
    _rule(
        "serve-vocabulary",
        "an engine may refuse an adapter that comes with added_tokens.json",
        "leave the file out if the base has these tokens, otherwise merge",
        about("added_tokens"),
        severity=Severity.WARNING,
    ),
    _rule(
        "serve-experts",
        "fused experts are served by few engines, for some models",
        "merge the adapter into its base",
        about("target_parameters", "half_experts"),
    ),
    _rule(
        "serve-variant",
        "variants of LoRA load as plain LoRA in engines that do not know them, and answer differently",
        "serve it with an engine that knows the variant, or merge where it can be merged",
        about("alora", "arrow", "qalora", "bdlora", "kasa", "layer_replication"),
    ),
    _rule(
        "serve-initialization",
        "PiSSA, OLoRA, CorDA and LoftQ change the base, so that the factors are no delta to it as published",
        "convert the adapter to a plain LoRA with PEFT's path_initial_model_for_weight_conversion",
        initialization,
    ),
    _rule(
        "serve-suffix",
        "engines refuse or leave out tensors whose names they do not know",
        "merge the adapter into its base",
        suffix,
    ),
    _rule(
        "serve-target",
        "some engines know a fixed list of modules, or serve a kind of module in all layers or in none",
        "export for the engine, or merge",
        targets,
    ),
    _rule(
        "serve-architecture",
        "some engines convert adapters of a few architectures only",
        "convert the adapter to GGUF with llama.cpp",
        architecture,
    ),
    _rule(
        "serve-base-unknown",
        "some engines look for the base that the adapter names",
        "push the adapter with --base",
        about("no_base"),
        severity=Severity.WARNING,
    ),
)


def serving(subject: Subject) -> Iterator[Finding]:
    """All findings of all serving rules."""
    for rule in SERVING_RULES:
        yield from rule.check(subject)
