"""Tensors that are no factors: modules saved whole, heads, resized embeddings, replaced biases, trained token rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from registry.domain.finding import Finding
from registry.formats.adapter_config import AdapterConfig
from registry.variants.findings import error, info, some, warning
from registry.variants.settings import saved_modules, trained_biases
from registry.variants.tensor_names import Place

#: Embeddings and heads that PEFT saves without being told when the vocabulary was resized or they are targets.
_EMBEDDINGS = frozenset(
    {"embed_tokens", "lm_head", "wte", "word_embeddings", "embed_in", "embed_out", "shared", "tok_embeddings"}
)
#: PEFT lists both for classification tasks, and a model has one of them (``peft/utils/constants.py``).
_CLASSIFICATION_HEADS = frozenset({"classifier", "score"})

#: Parameters of PEFT methods; in another method's file nobody would load them.
_METHOD_PARAMETERS = re.compile(
    r"(?:^|\.)(?:lora_(?:[ABE]|embedding_[AB]|magnitude_vector|diag)|hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2)"
    r"|ia3_l|p?vera_lambda_[bd]|oft_R|boft_[Rs]|hra_u|(?:miss|bone)_block|c3a_kernel|(?:fourierft|waveft)_spectrum"
    r"|ln_tuning_layers|delora_(?:A|B|lambda)|randlora_(?:lambda|gamma)|vblora_logits_[AB]|road_(?:theta|alpha)"
    r"|shira_weight|gralora_[AB]|hira_[AB]|prompt_embeddings)(?:\.|$)"
)


@dataclass(frozen=True, slots=True)
class Extras:
    modules: tuple[str, ...]
    findings: tuple[Finding, ...]


def read_extras(config: AdapterConfig, left: Iterable[Place], mark: str) -> Extras:
    """What tensors belong to that are no factors of the adapter's own method, whose parameters start with ``mark``."""
    declared = saved_modules(config)
    biases = trained_biases(config)
    modules: set[str] = set()
    undeclared: set[str] = set()
    unknown: list[str] = []
    has_bias = False
    findings: list[Finding] = []
    for place in left:
        path = without_base_layer(place.path)
        tail = place.tail
        if tail == "trainable_tokens_delta" or path.endswith(".token_adapter"):
            path = path.removesuffix(".token_adapter")
            modules.add(path)
            if tail == "trainable_tokens_delta":
                findings += _token_rows(config, path, place)
            continue
        has_bias |= tail == "bias"
        saved = _saved_as(declared, path)
        if saved is not None:
            modules.add(saved)
        elif not path or tail.startswith(mark) or _METHOD_PARAMETERS.search(f"{path}.{tail}"):
            unknown.append(place.spec.name)
        else:
            modules.add(path)
            ours = tail == "bias" and biases != "none"
            copy = tail == "weight" and path.rpartition(".")[2] in _EMBEDDINGS
            if not (ours or copy):
                undeclared.add(path)
    return Extras(
        tuple(sorted(modules)),
        (
            *findings,
            *_unknown(unknown),
            *_undeclared(undeclared),
            *_absent(declared, modules),
            *_lost_biases(biases, has_bias),
        ),
    )


def without_base_layer(path: str) -> str:
    """PEFT's wrappers keep what they wrap in ``base_layer``, which the model itself does not have."""
    return ".".join(part for part in path.split(".") if part != "base_layer")


def _saved_as(declared: Sequence[str], path: str) -> str | None:
    """The outermost module on the path that ``modules_to_save`` names, by PEFT's rule: its path *ends* with the name,
    so that ``norm`` also takes ``layernorm`` (``peft/utils/other.py``, ``_set_trainable``)."""
    if not declared:
        return None
    parts = path.split(".")
    for length in range(1, len(parts) + 1):
        module = ".".join(parts[:length])
        if module.endswith(tuple(declared)):
            return module
    return None


def _token_rows(config: AdapterConfig, path: str, place: Place) -> Iterable[Finding]:
    """One row for each of ``trainable_token_indices``: a list for the input embedding, or lists by module."""
    indices = config.raw.get("trainable_token_indices")
    if not (
        indices is None or _is_tokens(indices) or (isinstance(indices, dict) and all(map(_is_tokens, indices.values())))
    ):
        raise config.refuse("trainable_token_indices", indices, "a list of token ids, or such lists by module")
    if isinstance(indices, dict):
        indices = next((value for name, value in indices.items() if path.endswith(name)), None)
    rows = place.spec.shape[0] if place.spec.shape else 0
    if isinstance(indices, list) and len(indices) != rows:
        yield error(
            "shape-mismatch",
            f"{place.spec.name} has {rows} rows, and trainable_token_indices names {len(indices)} tokens",
            where=place.spec.name,
            fix="correct trainable_token_indices, or save the adapter again",
        )


def _is_tokens(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, int) and not isinstance(item, bool) for item in value)


def _unknown(names: Iterable[str]) -> Iterable[Finding]:
    for name in names:
        yield error(
            "unknown-tensor",
            f"{name} belongs to nothing that this adapter has, so PEFT would drop it without a word",
            where=name,
            fix="remove the tensor, or correct its name or the config's peft_type",
        )


def _undeclared(modules: set[str]) -> Iterable[Finding]:
    if modules:
        names = sorted(modules)
        yield warning(
            "undeclared-module",
            f"whole tensors of {some(names)} are in the file and modules_to_save does not name them; loading replaces "
            "the base's own",
            where=names[0],
            fix="add the modules to modules_to_save, so that engines know of them",
        )


def _absent(declared: Sequence[str], modules: set[str]) -> Iterable[Finding]:
    absent = [name for name in declared if not any(module.endswith(name) for module in modules)]
    heads = [name for name in absent if name in _CLASSIFICATION_HEADS]
    if len(heads) == len(_CLASSIFICATION_HEADS):
        heads = []
    rest = [name for name in absent if name not in heads]
    if heads:
        yield info(
            "declared-module-absent",
            f"modules_to_save also names {some(heads)}, which the file does not have; PEFT always lists both heads",
            where="modules_to_save",
            fix="nothing to do",
        )
    if rest:
        yield warning(
            "declared-module-absent",
            f"modules_to_save names {some(rest)}, and no tensor belongs to it; if the base has such a module, PEFT "
            "cannot load the adapter",
            where="modules_to_save",
            fix="save the adapter again, or remove the name if the base has no such module",
        )


def _lost_biases(biases: str, has_bias: bool) -> Iterable[Finding]:
    if biases.endswith("_only") and not has_bias:
        yield warning(
            "bias-lost",
            f'bias is "{biases}" and the file has no bias: PEFT 0.7 to 0.20 did not save the trained biases '
            "(huggingface/peft#3490); if the targets have none, nothing is lost",
            where="bias",
            fix="save the adapter again with PEFT 0.21 or newer, if the trained model still exists",
        )
