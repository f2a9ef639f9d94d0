"""The rules, in the order in which their findings are reported."""

from __future__ import annotations

from registry.checks import (
    biases,
    experts,
    heads,
    identity,
    merging,
    method,
    missing,
    saved,
    selection,
    shapes,
    strays,
    targets,
    tokens,
    vocabulary,
)
from registry.checks.rule import Rule, Subject
from registry.checks.serving import SERVING_RULES
from registry.domain.finding import Finding

RULES: tuple[Rule, ...] = (
    method.METHOD_UNKNOWN,
    identity.BASE_ID,
    identity.BASE_UNPROVEN,
    identity.BASE_WEIGHTS,
    identity.BASE_REVISION,
    identity.BASE_FINGERPRINT,
    targets.NO_MATCH,
    targets.PREFIX_DRIFT,
    targets.UNMATCHED_TARGET,
    targets.REPLICATION_BEYOND,
    strays.UNMATCHED_TENSOR,
    selection.TARGET_NOT_CHOSEN,
    selection.LAYER_WITHOUT_TENSORS,
    missing.KIND_WITHOUT_TENSORS,
    shapes.WRONG_SHAPE,
    biases.BIAS_WITHOUT_BASE,
    biases.BIAS_ADDED,
    biases.BIAS_LOST,
    shapes.SHAPES_UNCHECKED,
    experts.EXPERTS_LAYOUT,
    heads.HEAD_NOWHERE,
    heads.HEAD_ELSEWHERE,
    saved.SAVED_INCOMPLETE,
    saved.SAVED_NESTED,
    heads.HEAD_RESIZED,
    heads.HEAD_BROUGHT,
    vocabulary.VOCABULARY_RESIZED,
    vocabulary.TOKEN_OUT_OF_RANGE,
    tokens.TOKEN_ROWS_ELSEWHERE,
    vocabulary.TIED_EMBEDDINGS,
    merging.NOT_MERGEABLE,
    merging.QUANTIZED_BASE,
    *SERVING_RULES,
)


def run(subject: Subject) -> list[Finding]:
    """Everything that every rule notices, never only the first."""
    return [finding for rule in RULES for finding in rule.check(subject)]
