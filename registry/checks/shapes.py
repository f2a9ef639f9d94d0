"""Do the factors fit the weight they change? LoRA's pair says both dimensions, so this finds most wrong bases.

With the weight W as a layer means it:

| module | W | A | B |
|---|---|---|---|
| linear, Conv1D | (out, in) | (r, in) | (out, r) |
| embedding | (vocabulary, dimension) | (r, vocabulary) | (dimension, r) |
| convolution | (out, in/groups, k…) | (r, in, k…) | (out, r/groups, 1…) |
| E fused experts | (E, a, b) | (r·E, a or b) | (b or a, r·E) |

DoRA's magnitude has one number per output, and per dimension for an embedding.
"""

from __future__ import annotations

from collections.abc import Iterator

from registry.checks.brought import HEADS
from registry.checks.heads import VOCABULARY
from registry.checks.matching import Matching, match
from registry.checks.misfit import Misfit, note
from registry.checks.rule import Rule, Subject
from registry.checks.widths import contradicting, has_free_rows, heads_misfitting, misfitting
from registry.domain.base_model import ModuleKind, ModuleSpec
from registry.domain.finding import Finding, Severity
from registry.domain.manifest import Manifest, Target
from registry.domain.tensors import TensorSpec
from registry.variants.findings import some
from registry.variants.lora_checks import shown
from registry.variants.lora_layers import LoraLayer
from registry.variants.tensor_names import PREFIX

_ROWS = "trainable_tokens_delta"
#: Trained on a base whose weights this tool cannot shape: block-diagonal and pooled factors.
_OTHER_SHAPES = frozenset({"bdlora", "qalora"})


def _wrong_shape(subject: Subject) -> Iterator[Finding]:
    matching = match(subject)
    if matching is None or subject.manifest.variant in _OTHER_SHAPES:
        return
    # The vocabulary that an embedding or head was trained with, where the file brings the weight.
    own = {one.module: one.spec.shape[0] for one in matching.whole if one.tail == "weight" and one.spec.shape}
    for target in (one for one in subject.manifest.targets if one.path in matching.layers):
        layer, module = matching.layers[target.path], matching.module(target.path)
        if module is not None and module.shape and not any(0 in spec.shape for spec in layer.tensors):
            yield from _pair(target, layer, module, own.get(target.path, module.shape[0]))
    for tensor in matching.whole:
        module = matching.module(tensor.module)
        if module is not None and module.shape is not None and tensor.module not in matching.brought:
            yield from _replacement(tensor.spec, tensor.module, tensor.tail, module)
    yield from heads_misfitting(matching)
    yield from contradicting(matching)
    yield from _tied(matching)
    yield from _tokens(subject.manifest, matching)


def _tied(matching: Matching) -> Iterator[Misfit]:
    """An output embedding that the base does not store, since it is the input embedding: its factors are those of a linear layer
    whose weight is the embedding's, or the one that the file brings."""
    base = matching.places.base
    embeddings = [
        module.shape
        for module in base.modules
        if module.kind is ModuleKind.EMBEDDING and module.shape and len(module.shape) == 2
    ]
    widths = {width for rows, width in embeddings if rows == base.vocabulary}
    brought = {one.module: one.spec.shape[0] for one in matching.whole if one.tail == "weight" and one.spec.shape}
    resized = {rows for path, rows in brought.items() if path.rpartition(".")[2] in VOCABULARY}
    for path in matching.brought if base.is_tied and widths else ():
        layer, name = matching.layers.get(path), path.rpartition(".")[2]
        if layer is None or layer.pair is None or name not in VOCABULARY:
            continue
        a, b = layer.pair
        if layer.embedding and name in HEADS:
            yield misfitting(
                path, a, "lora_A and lora_B, those of a linear layer", "lora_embedding_A, that of an embedding"
            )
            continue
        rows = {brought[path]} if path in brought else {size for size, _ in embeddings} | resized
        if a.shape[1:] not in {(width,) for width in widths}:
            yield misfitting(path, a, f"(r, {', '.join(map(str, sorted(widths)))})", shown(a.shape))
        if b.shape[:1] not in {(size,) for size in rows}:
            yield misfitting(path, b, f"({brought.get(path, base.vocabulary)}, r)", shown(b.shape))


def _tokens(manifest: Manifest, matching: Matching) -> Iterator[Misfit]:
    """Rows for single tokens are as wide as the embedding."""
    for spec in manifest.tensors:
        path, found, _ = spec.name.removeprefix(PREFIX).partition(f".{_ROWS}")
        module = matching.module(path.removesuffix(".token_adapter")) if found else None
        if module is not None and module.shape and spec.shape[1:] != module.shape[1:]:
            yield misfitting(path, spec, f"(tokens, {module.shape[1]})", shown(spec.shape))


def _pair(target: Target, layer: LoraLayer, module: ModuleSpec, rows: int) -> Iterator[Misfit]:
    path, shape = target.path, module.shape
    if layer.pair is None or shape is None:
        return
    a, b = layer.pair
    if min(len(shape), len(a.shape), len(b.shape)) < 2:
        yield misfitting(path, a, "a weight of two dimensions or more", f"{shown(shape)} in the base")
        return
    if module.kind is ModuleKind.EXPERTS:
        yield from _experts(target, a, b, shape)
        return
    if target.rank is not None and a.shape[0] != target.rank:  # a bare parameter, whose rank only the config says
        yield misfitting(path, a, f"({target.rank}, {shape[1]}), the rank of the config", shown(a.shape))
    if module.kind is ModuleKind.EMBEDDING and not layer.embedding and path.rpartition(".")[2] in VOCABULARY:
        yield misfitting(
            path, a, "lora_embedding_A and lora_embedding_B, those of an embedding", "lora_A, that of a linear layer"
        )
        return
    in_layers = any(part.isdecimal() for part in path.split("."))  # outside, an embedding may have any name
    if layer.embedding and in_layers and module.kind in (ModuleKind.LINEAR, ModuleKind.CONV1D):
        yield misfitting(
            path, a, "lora_A and lora_B, those of a linear layer", "lora_embedding_A, that of an embedding"
        )
        return
    inputs, outputs = (rows, shape[1]) if layer.embedding else (shape[1], rows)
    given, made = a.shape[1], b.shape[0]
    if path.endswith(".weight") and (given, made) == (outputs, inputs):
        return  # a bare parameter: PEFT 0.19 and older took it the other way round
    kernel = shape[2:]
    groups, rest = divmod(given, inputs) if kernel and inputs else (1, given - inputs)
    if rest or not groups or a.shape[2:] != kernel:
        yield misfitting(path, a, f"(r, {', '.join(map(str, (inputs, *kernel)))})", shown(a.shape))
    if made != outputs:
        yield misfitting(path, b, f"({outputs}, r)", shown(b.shape))
    if layer.magnitude is not None and layer.magnitude.elements != outputs:
        yield misfitting(path, layer.magnitude, f"{outputs} numbers", shown(layer.magnitude.shape))
    if layer.bias is not None and layer.bias.shape != (outputs,):
        yield misfitting(path, layer.bias, f"({outputs})", shown(layer.bias.shape))


def _experts(target: Target, a: TensorSpec, b: TensorSpec, shape: tuple[int, ...]) -> Iterator[Misfit]:
    """A holds the rank's rows for each expert. Where the config's rank could not be told, any multiple will do."""
    path, (count, one, other) = target.path, shape
    rows = a.shape[0]
    if target.rank is not None and rows != target.rank * count:
        experts, rest = divmod(rows, target.rank)
        found = f"{shown(a.shape)}{'' if rest else f', rank {target.rank} of {experts:,} experts'}"
        yield misfitting(path, a, f"{target.rank * count:,} rows, rank {target.rank} of {count:,} experts", found)
    elif not count or rows % count:
        yield misfitting(path, a, f"a multiple of {count} rows, one for each expert and rank", shown(a.shape))
    if (a.shape[1], b.shape[0]) not in ((one, other), (other, one)):
        found = f"{shown(a.shape)} and {shown(b.shape)}"
        yield misfitting(path, a, f"(r·{count}, {other}) and B ({one}, r·{count})", found)


def _replacement(spec: TensorSpec, path: str, tail: str, module: ModuleSpec) -> Iterator[Misfit]:
    """A whole tensor over the base's. A convolution may be one that stores its inputs first."""
    shape = module.shape or ()
    stored = shape[::-1] if module.kind is ModuleKind.CONV1D else shape
    wanted = stored if tail == "weight" else shape[:1]
    inputs = shape[1] if module.kind is ModuleKind.CONV and tail == "bias" else 0
    is_transposed = inputs > 0 and len(spec.shape) == 1 and spec.elements % inputs == 0
    if spec.shape == wanted or is_transposed or (has_free_rows(path, module) and spec.shape[1:] == wanted[1:]):
        return
    yield misfitting(path, spec, shown(wanted), shown(spec.shape))


def _unchecked(subject: Subject) -> Iterator[Finding]:
    matching = match(subject)
    if matching is None:
        return
    paths = [target.path for target in subject.manifest.targets]
    hidden = [
        path for path in paths if (module := matching.module(path)) is not None and module.kind is ModuleKind.PACKED
    ]
    if hidden:
        yield note(
            "shapes-unchecked",
            f"the base is quantised and does not show the shapes of {len(hidden):,} of the {len(paths):,} targets; only "
            f"their names were compared: {some(hidden)}",
            target=hidden[0],
            fix="check against the base before it was quantised",
        )


WRONG_SHAPE = Rule(
    "wrong-shape",
    Severity.ERROR,
    "A factor that does not fit its weight cannot be loaded, or shows that the base is another one.",
    "Check against the base it was trained on.",
    _wrong_shape,
)
SHAPES_UNCHECKED = Rule(
    "shapes-unchecked",
    Severity.INFO,
    "Weights packed by a quantiser do not show their shape, so that only names can be compared.",
    "Check against the base before it was quantised.",
    _unchecked,
)
