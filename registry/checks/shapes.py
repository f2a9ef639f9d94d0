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

from registry.checks.matching import HEADS, Matching, match
from registry.checks.misfit import Misfit, error, note
from registry.checks.rule import Rule, Subject
from registry.domain.base_model import ModuleKind, ModuleSpec
from registry.domain.finding import Finding, Severity
from registry.domain.manifest import Manifest
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
    for path in (target.path for target in subject.manifest.targets if target.path in matching.layers):
        layer, module = matching.layers[path], matching.module(path)
        if module is not None and module.shape and not any(0 in spec.shape for spec in layer.tensors):
            yield from _pair(path, layer, module, own.get(path, module.shape[0]))
    for tensor in matching.whole:
        module = matching.module(tensor.module)
        if module is not None and module.shape is not None and tensor.module not in matching.brought:
            yield from _replacement(tensor.spec, tensor.module, tensor.tail, module)
    yield from _heads(matching)
    yield from _tokens(subject.manifest, matching)


def _heads(matching: Matching) -> Iterator[Misfit]:
    """A head that the base lacks reads what some module of the base, or of the adapter, puts out: a width that is nowhere
    is of another base."""
    widths = {size for module in matching.places.base.modules for size in module.shape or ()}
    for tensor in matching.whole:
        shape = tensor.spec.shape
        if tensor.module in matching.brought and tensor.tail == "weight" and len(shape) == 2:
            others = {one.spec.shape[0] for one in matching.whole if one is not tensor and one.spec.shape}
            if widths and shape[1] not in widths | others:
                yield _misfit(tensor.module, tensor.spec, "inputs of a width that the base has", shown(shape))


def _tokens(manifest: Manifest, matching: Matching) -> Iterator[Misfit]:
    """Rows for single tokens are as wide as the embedding."""
    for spec in manifest.tensors:
        path, found, _ = spec.name.removeprefix(PREFIX).partition(f".{_ROWS}")
        module = matching.module(path.removesuffix(".token_adapter")) if found else None
        if module is not None and module.shape and spec.shape[1:] != module.shape[1:]:
            yield _misfit(path, spec, f"(tokens, {module.shape[1]})", shown(spec.shape))


def _pair(path: str, layer: LoraLayer, module: ModuleSpec, rows: int) -> Iterator[Misfit]:
    shape = module.shape
    if layer.pair is None or shape is None:
        return
    a, b = layer.pair
    if min(len(shape), len(a.shape), len(b.shape)) < 2:
        yield _misfit(path, a, "a weight of two dimensions or more", f"{shown(shape)} in the base")
        return
    if module.kind is ModuleKind.EXPERTS:
        yield from _experts(path, a, b, shape)
        return
    in_layers = any(part.isdecimal() for part in path.split("."))  # outside, an embedding may have any name
    if layer.embedding and in_layers and module.kind in (ModuleKind.LINEAR, ModuleKind.CONV1D):
        yield _misfit(path, a, "lora_A and lora_B, those of a linear layer", "lora_embedding_A, that of an embedding")
        return
    inputs, outputs = (rows, shape[1]) if layer.embedding else (shape[1], rows)
    given, made = a.shape[1], b.shape[0]
    if path.endswith(".weight") and (given, made) == (outputs, inputs):
        return  # a bare parameter: PEFT 0.19 and older took it the other way round
    kernel = shape[2:]
    groups, rest = divmod(given, inputs) if kernel and inputs else (1, given - inputs)
    if rest or not groups or a.shape[2:] != kernel:
        yield _misfit(path, a, f"(r, {', '.join(map(str, (inputs, *kernel)))})", shown(a.shape))
    if made != outputs:
        yield _misfit(path, b, f"({outputs}, r)", shown(b.shape))
    if layer.magnitude is not None and layer.magnitude.elements != outputs:
        yield _misfit(path, layer.magnitude, f"{outputs} numbers", shown(layer.magnitude.shape))
    if layer.bias is not None and layer.bias.shape != (outputs,):
        yield _misfit(path, layer.bias, f"({outputs})", shown(layer.bias.shape))


def _experts(path: str, a: TensorSpec, b: TensorSpec, shape: tuple[int, ...]) -> Iterator[Misfit]:
    count, one, other = shape
    if not count or a.shape[0] % count:
        yield _misfit(path, a, f"a multiple of {count} rows, one for each expert and rank", shown(a.shape))
    if (a.shape[1], b.shape[0]) not in ((one, other), (other, one)):
        found = f"{shown(a.shape)} and {shown(b.shape)}"
        yield _misfit(path, a, f"(r·{count}, {other}) and B ({one}, r·{count})", found)


def _replacement(spec: TensorSpec, path: str, tail: str, module: ModuleSpec) -> Iterator[Misfit]:
    """A whole tensor over the base's. Another number of rows at the edges of the model is the vocabulary's or the
    labels' business."""
    shape = module.shape or ()
    stored = shape[::-1] if module.kind is ModuleKind.CONV1D else shape
    wanted = stored if tail == "weight" else shape[:1]
    inside = any(part.isdecimal() for part in path.split("."))
    if spec.shape == wanted or (not inside and spec.shape[1:] == wanted[1:]):
        return
    yield _misfit(path, spec, shown(wanted), shown(spec.shape))


def _misfit(path: str, spec: TensorSpec, expected: str, found: str) -> Misfit:
    return error(
        "wrong-shape",
        f"{spec.name} is {found}, and {path} in the base needs {expected}",
        where=spec.name,
        target=path,
        expected=expected,
        found=found,
        fix="check against the base it was trained on",
    )


def _bias_without_base(subject: Subject) -> Iterator[Finding]:
    matching = match(subject)
    if matching is None:
        return
    added = [(path, layer.bias) for path, layer in matching.layers.items() if layer.bias is not None]
    replaced = [(tensor.module, tensor.spec) for tensor in matching.whole if tensor.tail == "bias"]
    own = {one.module for one in matching.whole if one.tail == "weight" and one.module.rpartition(".")[2] in HEADS}
    for path, spec in (*added, *replaced):
        module = matching.module(path)
        if module is None or module.has_bias or module.kind is ModuleKind.PACKED or path in own:
            continue  # a head that is replaced whole brings its bias
        yield error(
            "bias-without-base",
            f"{spec.name} changes a bias, and {path} in the base has none",
            where=spec.name,
            target=path,
            expected="a module with a bias",
            found="a module without",
            fix="check against the base it was trained on; PEFT cannot merge it, and drops a bias on load",
        )


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
BIAS_WITHOUT_BASE = Rule(
    "bias-without-base",
    Severity.ERROR,
    "A trained bias needs a bias to change: without one PEFT raises on merge, or drops it.",
    "Check against the base it was trained on.",
    _bias_without_base,
)
SHAPES_UNCHECKED = Rule(
    "shapes-unchecked",
    Severity.INFO,
    "Weights packed by a quantiser do not show their shape, so that only names can be compared.",
    "Check against the base before it was quantised.",
    _unchecked,
)
