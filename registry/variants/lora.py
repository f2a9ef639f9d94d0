"""LORA in all its forms: ΔW = s·B·A with s = α/r, or α/√r for rsLoRA.

| form | what differs |
|---|---|
| embedding | ``lora_embedding_A`` (r, vocabulary) and ``_B`` (dimension, r), without ``.weight`` |
| convolution | A carries the kernel, B is 1×1; with groups B has r/groups inputs |
| ``nn.MultiheadAttention`` | ``attn`` has the pair of ``in_proj``, ``attn.base_layer.out_proj`` one with its patterns |
| ``target_parameters`` | see :mod:`~registry.variants.lora_parameters`; A and B hold r·E rows for E experts |
| DoRA | ``lora_magnitude_vector``, one number per output |
| KaSA | ``lora_diag`` between B and A, and the base without its r smallest singular components |
| BD-LoRA | one factor as its diagonal blocks |
| aLoRA, Arrow, QALoRA, MonteCLoRA, VeLoRA | plain factors; the config says how they are used or were trained |

Papers: LoRA 2106.09685, rsLoRA 2312.03732, DoRA 2402.09353, PiSSA 2404.02948, KaSA 2412.06071.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt

from registry.domain.finding import Finding
from registry.domain.manifest import Target
from registry.domain.tensors import TensorSpec
from registry.formats.adapter_config import AdapterConfig
from registry.variants import lora_checks
from registry.variants.anatomy import PatternMatcher, Reading
from registry.variants.extras import read_extras, without_base_layer
from registry.variants.findings import error, info, some, warning
from registry.variants.lora_layers import TAILS, LoraLayer, gather
from registry.variants.lora_parameters import name_wrappers, parameters_of, wrapped_module
from registry.variants.lora_refusals import refusals
from registry.variants.lora_settings import LoraSettings, read_settings
from registry.variants.natural_order import natural
from registry.variants.pattern_age import patterns_changed_meaning
from registry.variants.pattern_table import PatternTable
from registry.variants.settings import layer_spans
from registry.variants.tensor_names import Place, places
from registry.variants.wanted import absent_targets, is_asked_for

MARK = "lora_"
#: α/r in real adapters is 1, 2 or 4, and up to 32 with large α on purpose.
USUAL_SCALING = 64.0


@dataclass(frozen=True, slots=True)
class _Named:
    """A layer with its two names: ``path``, which is recorded, and ``key``, which PEFT matches patterns with."""

    layer: LoraLayer
    path: str
    key: str
    is_parameter: bool = False
    is_certain: bool = True


def read_lora(config: AdapterConfig, tensors: Sequence[TensorSpec], patterns: PatternMatcher) -> Reading:
    settings = read_settings(config)
    found, findings = places(tensors, MARK, TAILS)
    layers, left = gather(found)
    patterns.expect(wrapped_module(layer.path)[0] for layer in layers)
    named, problems = _name(config, settings, layers, patterns)
    findings += problems
    findings += lora_checks.zero_size(tensors)

    ranks = PatternTable("rank_pattern", settings.rank_pattern, settings.r, patterns)
    alphas = PatternTable("alpha_pattern", settings.alpha_pattern, settings.alpha, patterns)
    patterns.expect(one.key for one in named)
    targets: list[Target] = []
    for one in named:
        asked, alpha = ranks.value(one.key), alphas.value(one.key)
        pair = one.layer.pair
        if pair is None:
            findings += lora_checks.orphans(one.layer)
            continue
        rank: int | None = None
        if not any(0 in spec.shape for spec in one.layer.tensors):
            problems = list(lora_checks.misshapen(one.layer, *pair, settings, one.key))
            if not problems:
                rank, problems = _rank(one, pair[0], asked)
            findings += problems
        targets.append(Target(one.path, rank, alpha, _scaling(alpha, rank, settings.rslora)))
    targets.sort(key=lambda target: natural(target.path))

    extras = read_extras(config, left, MARK)
    paths = [target.path for target in targets]
    absent = absent_targets(config, paths, patterns, settings.target_parameters)
    return Reading(
        variant=settings.variant,
        targets=tuple(targets),
        extra_modules=extras.modules,
        silent_if_zero=tuple(_silent_if_zero(layers, settings)),
        absent_targets=absent.names,
        base_change=settings.base_change,
        findings=(
            *refusals(
                config,
                has_parameters=any(one.is_parameter for one in named),
                has_embeddings=any(layer.embedding for layer in layers),
            ),
            *findings,
            *_nothing(layers, left, findings),
            *(problem for layer in layers for problem in lora_checks.undeclared(layer, settings)),
            *_mixed_dtypes(layers),
            *extras.findings,
            *absent.findings,
            *ranks.findings(),
            *alphas.findings(),
            *patterns_changed_meaning(config, settings.rank_pattern, settings.alpha_pattern),
            *_extreme_scaling(targets),
            *_base_change(settings),
            *_replication(config),
        ),
    )


def _name(
    config: AdapterConfig, settings: LoraSettings, layers: Iterable[LoraLayer], patterns: PatternMatcher
) -> tuple[list[_Named], list[Finding]]:
    named: list[_Named] = []
    findings: list[Finding] = []
    wrappers: dict[str, list[LoraLayer]] = {}
    for layer in layers:
        module, depth = wrapped_module(layer.path)
        if depth == 0 and not parameters_of(module, settings.target_parameters):
            attention, inside, _ = module.partition(".base_layer.")
            named.append(_Named(layer, without_base_layer(module), attention if inside else module))
        else:
            wrappers.setdefault(module, []).append(layer)
    for module, inside_out in wrappers.items():
        if len(inside_out) == 1 and inside_out[0].path == module and is_asked_for(config, module, patterns):
            named.append(_Named(inside_out[0], module, module))  # PEFT does not wrap what target_modules has taken
            continue
        parameters, problems = name_wrappers(module, inside_out, settings.target_parameters)
        findings += problems
        for layer in inside_out:
            parameter = parameters[layer.path]
            path = layer.path if parameter is None else f"{module}.{parameter}"
            named.append(_Named(layer, path, path, is_parameter=True, is_certain=parameter is not None))
    return named, findings


def _rank(one: _Named, a: TensorSpec, asked: int | None) -> tuple[int | None, list[Finding]]:
    """The rank of the layer, and whether the config agrees. ``asked`` is None where a pattern could not be evaluated;
    then the tensors are believed, and fused experts, whose number only the config's rank tells, stay unknown."""
    rows = a.shape[0]
    if one.is_parameter:
        if asked is None or not one.is_certain:
            return None, []
        if rows % asked == 0:
            return asked, []
    elif asked is None or rows == asked:
        return rows, []
    where = "a multiple of it, for each expert one" if one.is_parameter else "so many rows"
    return (None if one.is_parameter else rows), [
        error(
            "rank-mismatch",
            f"{a.name} {lora_checks.shown(a.shape)} has rank {rows}, and the config gives {one.key} rank {asked}; "
            f"expected {where}",
            where=a.name,
            fix="correct r or rank_pattern in adapter_config.json; PEFT cannot load the adapter as it is",
        )
    ]


def _scaling(alpha: float | None, rank: int | None, rslora: bool) -> float | None:
    if alpha is None or rank is None:
        return None
    return alpha / sqrt(rank) if rslora else alpha / rank


def _silent_if_zero(layers: Iterable[LoraLayer], settings: LoraSettings) -> Iterable[str]:
    """Every B; and A where training starts from A = 0: embeddings, and MiCA, which freezes B."""
    for layer in layers:
        if layer.pair is not None:
            a, b = layer.pair
            yield b.name
            if layer.embedding or settings.initialization.lower() == "mica":
                yield a.name


def _nothing(layers: Sequence[LoraLayer], left: Sequence[Place], findings: Sequence[Finding]) -> Iterable[Finding]:
    if layers or any(one.rule == "foreign-names" for one in findings):
        return
    report = warning if left else error
    yield report(
        "no-targets",
        "the config says LORA and the file has no lora_A or lora_B"
        + (", only whole tensors" if left else ": it would do nothing"),
        fix="check that training saved the adapter, and that this is its file",
    )


def _mixed_dtypes(layers: Iterable[LoraLayer]) -> Iterable[Finding]:
    pairs = [layer.pair for layer in layers if layer.pair is not None]
    mixed = [(a, b) for a, b in pairs if a.dtype != b.dtype]
    if mixed:
        a, b = mixed[0]
        yield warning(
            "dtype-mismatch",
            f"A and B differ in dtype ({a.dtype} and {b.dtype}): {some([a.name for a, _ in mixed])}",
            where=a.name,
            fix="cast both to one dtype; engines that stack them expect it",
        )


def _extreme_scaling(targets: Iterable[Target]) -> Iterable[Finding]:
    extreme: dict[float, list[str]] = {}
    for target in targets:
        if target.scaling is not None and not 0 < target.scaling <= USUAL_SCALING:
            extreme.setdefault(target.scaling, []).append(target.path)
    for scaling, paths in extreme.items():
        effect = "the adapter does nothing there" if scaling == 0 else f"usual is above 0 and up to {USUAL_SCALING:g}"
        yield warning(
            "scaling-extreme",
            f"scaling is {scaling:g} in {some(paths)}: {effect}",
            where="lora_alpha",
            fix="check lora_alpha, alpha_pattern and r",
        )


def _base_change(settings: LoraSettings) -> Iterable[Finding]:
    if settings.base_change is not None:
        yield warning(
            "base-changed-by-initialization",
            f"training started from {settings.base_change}, which takes something out of the base: the factors are no "
            "delta to the base as published",
            where="kasa_config" if settings.kasa else "init_lora_weights",
            fix="save with path_initial_model_for_weight_conversion (PEFT), which makes a plain LoRA of it"
            if settings.base_change in {"pissa", "corda", "olora", "lora_ga"}
            else "merge only with the base that the training left",
        )


def _replication(config: AdapterConfig) -> Iterable[Finding]:
    if layer_spans(config):
        yield info(
            "layers-replicated",
            "layer_replication rebuilds the layers of the base, and the layer numbers here are those of the result",
            where="layer_replication",
            fix="nothing to do; the adapter cannot be merged into the base as published",
        )
