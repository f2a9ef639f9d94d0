"""LoRA configs that PEFT 0.21 refuses before it has looked at a single tensor (``peft/tuners/lora/config.py``, ``layer.py``).

Such a config was edited by hand: PEFT would not have trained with it. What PEFT reads differently from what it was trained
with is not meant here, only what ends in an exception on load.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from registry.domain.finding import Finding
from registry.formats.adapter_config import AdapterConfig
from registry.variants.findings import error
from registry.variants.settings import saved_modules
from registry.variants.token_rows import token_indices

#: Fields that may be left away and must not be null, with what they hold.
_NEVER_NULL = {
    "r": "the rank, a positive whole number",
    "lora_alpha": "a number",
    "lora_dropout": "a number from 0 to 1",
    "bias": '"none", "all" or "lora_only"',
    "rank_pattern": "an object, {} for none",
    "alpha_pattern": "an object, {} for none",
}
#: Fields that ``ParamWrapper`` refuses as soon as they are set.
_NOT_WITH_PARAMETERS = (
    "lora_dropout", "fan_in_fan_out", "lora_bias", "use_dora", "kasa_config", "velora_config", "use_qalora",
    "use_bdlora", "arrow_config", "alora_invocation_tokens", "monteclora_config",
)  # fmt: skip
_DEFAULT = "write the value that was trained with; a field that is left away has PEFT's default"


def refusals(config: AdapterConfig, *, has_parameters: bool, has_embeddings: bool) -> Iterator[Finding]:
    """``has_parameters``: whether bare parameters are adapted; ``has_embeddings``: whether embeddings are, as such."""
    raw = config.raw
    for field, holds in _NEVER_NULL.items():
        if field in raw and raw[field] is None:
            yield _refused(field, "is null", f"expected {holds}", _DEFAULT)
    yield from _dropout(raw.get("lora_dropout"))
    yield from _layers(config)
    if has_parameters:
        yield from _parameters(config)
    if config.truthy("lora_bias"):
        yield from _bias(config, has_embeddings=has_embeddings)
    yield from _twice(config)


def _dropout(value: object) -> Iterator[Finding]:
    if value is None or (isinstance(value, int | float) and not value > 1):
        return
    yield _refused("lora_dropout", f"is {value!r:.40}", "expected a number from 0 to 1", "0 is right for inference")


def _layers(config: AdapterConfig) -> Iterator[Finding]:
    indices, pattern = config.raw.get("layers_to_transform"), config.raw.get("layers_pattern")
    if pattern and indices is None:
        yield _refused(
            "layers_pattern",
            f"is {pattern!r:.80} and layers_to_transform is not given",
            "expected both or none",
            "remove layers_pattern, or say which layers: layers_to_transform",
        )
    if isinstance(config.raw.get("target_modules"), str):
        for field, value in (("layers_to_transform", indices), ("layers_pattern", pattern)):
            if value is not None:
                yield _refused(
                    field,
                    "is given, and target_modules is an expression",
                    "expected the expression alone to choose the layers",
                    f"remove {field}, or list the names in target_modules",
                )


def _parameters(config: AdapterConfig) -> Iterator[Finding]:
    for field in _NOT_WITH_PARAMETERS:
        if config.truthy(field):
            yield _refused(
                field,
                f"is {config.raw[field]!r:.40}, and target_parameters adapts bare parameters",
                "expected it to be unset: on a parameter only plain LoRA works",
                "set lora_dropout to 0" if field == "lora_dropout" else f"remove {field} if it was trained without",
            )


def _bias(config: AdapterConfig, *, has_embeddings: bool) -> Iterator[Finding]:
    problems = []
    if config.truthy("use_dora"):
        problems.append("and so is use_dora")
    if not isinstance(config.raw.get("init_lora_weights", True), bool):
        problems.append(f"and init_lora_weights is {config.raw['init_lora_weights']!r:.40}")
    if has_embeddings:
        problems.append("and an embedding is adapted")
    for problem in problems:
        yield _refused(
            "lora_bias",
            f"is true {problem}",
            "expected lora_bias on linear and convolutional layers alone, without DoRA, and a plain initialisation",
            "set lora_bias to false if it was trained without",
        )


def _twice(config: AdapterConfig) -> Iterator[Finding]:
    asked = token_indices(config)
    both: Collection[str] = set(asked) & set(saved_modules(config)) if isinstance(asked, dict) else ()
    for name in sorted(both):
        yield _refused(
            "trainable_token_indices",
            f"names {name}, and so does modules_to_save",
            "expected one of the two",
            "remove the one that the file has no tensors of",
        )


def _refused(field: str, found: str, expected: str, fix: str) -> Finding:
    return error(
        "config-refused", f"{field} {found}; {expected}, so PEFT cannot load the adapter", where=field, fix=fix
    )
