"""Tensors that are no factors: modules saved whole, heads, resized embeddings, replaced biases, trained token rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from registry.domain.finding import Finding
from registry.domain.tensors import TensorSpec
from registry.formats.adapter_config import AdapterConfig
from registry.variants.findings import error, info, some, warning
from registry.variants.settings import saved_modules, trained_biases
from registry.variants.tensor_names import Place
from registry.variants.token_rows import DELTA, WRAPPER, token_findings

#: Embeddings and heads that PEFT saves without being told when the vocabulary was resized or they are targets.
_EMBEDDINGS = frozenset(
    {"embed_tokens", "lm_head", "wte", "word_embeddings", "embed_in", "embed_out", "shared", "tok_embeddings"}
)
#: PEFT lists both for classification tasks, and a model has one of them (``peft/utils/constants.py``).
_CLASSIFICATION_HEADS = frozenset({"classifier", "score"})
_CLASSIFICATION_TASKS = frozenset({"SEQ_CLS", "TOKEN_CLS"})

#: Parameters of PEFT methods; in another method's file nobody would load them.
_METHOD_PARAMETERS = re.compile(
    r"(?:^|\.)(?:lora_(?:[ABE]|embedding_[AB]|magnitude_vector|diag)|hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2)"
    r"|ia3_l|p?vera_lambda_[bd]|oft_(?:embedding_)?R|boft_[Rs]|hra_u|(?:miss|bone)_block|c3a_kernel|(?:fourierft|waveft)_spectrum"
    r"|ln_tuning_layers|delora_(?:A|B|lambda)|randlora_(?:lambda|gamma)|vblora_logits_[AB]|road_(?:theta|alpha)"
    r"|shira_weight|gralora_[AB]|hira_[AB]|prompt_embeddings)(?:\.|$)"
)


@dataclass(frozen=True, slots=True)
class Extras:
    modules: tuple[str, ...]
    findings: tuple[Finding, ...]


def read_extras(config: AdapterConfig, left: Sequence[Place], mark: str) -> Extras:
    """What tensors belong to that are no factors of the adapter's own method, whose parameters start with ``mark``."""
    declared = saved_modules(config)
    biases = trained_biases(config)
    modules: set[str] = set()
    undeclared: set[str] = set()
    unknown: list[str] = []
    rows: dict[str, TensorSpec] = {}
    saved: list[tuple[str, Place]] = []
    for place in left:
        path = without_base_layer(place.path)
        tail = place.tail
        if path.endswith(WRAPPER):
            path = path.removesuffix(WRAPPER)
            modules.add(path)
            if tail == DELTA:
                rows[path] = place.spec
            continue
        whole = _saved_as(declared, path)
        if whole is not None:
            modules.add(whole)
            saved.append((whole, place))
        elif not path or tail.startswith(mark) or tail == DELTA or _METHOD_PARAMETERS.search(f"{path}.{tail}"):
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
            *token_findings(config, rows),
            *_unknown(unknown),
            *_undeclared(undeclared),
            *_wrapped(saved),
            *_absent(config, declared, modules),
            *lost_biases(biases, has_bias=any(place.tail == "bias" for place in left)),
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
            "the base's own, where it has them",
            where=names[0],
            fix="add the modules to modules_to_save, so that engines know of them",
        )


def _wrapped(saved: Iterable[tuple[str, Place]]) -> Iterable[Finding]:
    """PEFT reads a module saved whole under its own name; below ``base_layer`` lies what an adapted module wraps."""
    saved = tuple(saved)
    plain = {(place.path, place.tail) for _, place in saved}
    inside: dict[str, str] = {}
    for module, place in saved:
        outside = without_base_layer(place.path)
        if outside != place.path and (outside, place.tail) not in plain:
            inside.setdefault(module, place.spec.name)
    for module, name in inside.items():
        yield error(
            "saved-below-wrapper",
            f"modules_to_save names {module}, and the file has it as {name}, where PEFT does not look for it: the adapter "
            "cannot be loaded",
            where=name,
            fix="rename the tensor, without base_layer, or remove the name from modules_to_save",
        )


def _absent(config: AdapterConfig, declared: Sequence[str], modules: set[str]) -> Iterable[Finding]:
    absent = [name for name in declared if not any(module.endswith(name) for module in modules)]
    heads = [name for name in absent if name in _CLASSIFICATION_HEADS]
    if len(heads) == len(_CLASSIFICATION_HEADS) or config.task_type not in _CLASSIFICATION_TASKS:
        heads = []
    rest = [name for name in absent if name not in heads]
    if heads:
        yield info(
            "declared-module-absent",
            f"modules_to_save also names {some(heads)}, which the file does not have; PEFT lists both heads for "
            f"{config.task_type}, and a model has one of them",
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


def lost_biases(biases: str, *, has_bias: bool) -> Iterable[Finding]:
    """What can be said without the base, which tells whether its modules have biases at all."""
    if biases.endswith("_only") and not has_bias:
        yield warning(
            "bias-lost",
            f'bias is "{biases}" and the file has no bias: PEFT 0.7 to 0.20 did not save the trained biases '
            "(huggingface/peft#3490); if the targets have none, nothing is lost",
            where="bias",
            fix="save the adapter again with PEFT 0.21 or newer, if the trained model still exists",
        )
