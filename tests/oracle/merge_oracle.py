"""The same files merged three times: by us, by PEFT, and by PEFT in float64, which is the number that a merge has to round.

In float64 PEFT's own roundings of a delta (of embeddings, fused experts and block diagonal factors, to the base's type)
vanish. What it does to tied embeddings stays wrong, so that there the oracle gets a base with two matrices.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file, save_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from registry.connect import connect
from registry.errors import RegistryError
from registry.plans.merge_plan import MergeOptions

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
#: float32: logits of two models whose weights differ by one rounding.
ROUNDING = 1e-5
TOKENS = torch.tensor([[3, 1, 2, 7, 9, 4, 1, 2, 5, 6]])
Tensors = dict[str, Tensor]
Adapters = Path | list[Path | tuple[Path, float]]


def perturb(model: nn.Module, size: float = 0.05, seed: int = 1) -> None:
    """No tensor of the adapter stays zero or is another's twin."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += size * torch.randn_like(parameter)


def train(model: nn.Module, config: Any, directory: Path, *, seed: int = 1, **options: Any) -> Path:
    wrapped = get_peft_model(model, config)
    perturb(wrapped, seed=seed)
    return save_adapter(wrapped, directory, **options)


def save_adapter(wrapped: Any, directory: Path, **options: Any) -> Path:
    wrapped.save_pretrained(str(directory), **options)
    edit_config(directory, base_model_name_or_path="acme/tiny")
    return directory


def edit_config(directory: Path, **changes: Any) -> None:
    path = directory / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_tensors(directory: Path, edit: Callable[[Tensors], Tensors]) -> None:
    save_file(edit(load_file(directory / WEIGHTS)), directory / WEIGHTS)


def altered(adapter: Path, directory: Path, edit: Callable[[Tensors], Tensors]) -> Path:
    """A copy of the adapter with other tensors."""
    directory.mkdir(parents=True)
    (directory / CONFIG).write_bytes((adapter / CONFIG).read_bytes())
    save_file(edit(load_file(adapter / WEIGHTS)), directory / WEIGHTS)
    return directory


def save_base(model: nn.Module, directory: Path, **options: Any) -> Path:
    if isinstance(model, PreTrainedModel):
        model.save_pretrained(directory, **options)
    else:
        directory.mkdir(parents=True)
        save_model(model, str(directory / "model.safetensors"))
        (directory / "config.json").write_text("{}")  # none of transformers' models, and no more to say
    return directory


def tensors_of(directory: Path) -> Tensors:
    """All tensors of a checkpoint, whatever files they lie in."""
    found: Tensors = {}
    for path in sorted(directory.glob("*.safetensors")):
        mine = load_file(path)
        assert not found.keys() & mine.keys()
        found |= mine
    return found


def config_of(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "config.json").read_text())
    return found


def merge(base: Path, adapters: Adapters, out: Path, **options: Any) -> Any:
    listed = adapters if isinstance(adapters, list) else [adapters]
    registry = connect(out.parent / "registry")
    return registry.merge(base, listed, out, options=MergeOptions(**options), device="cpu")


def merged(base: Path, adapters: Adapters, out: Path, **options: Any) -> Tensors:
    merge(base, adapters, out, **options)
    return tensors_of(out)


def refusal(base: Path, adapters: Adapters, out: Path, **options: Any) -> str:
    """The rules that stand against the merge, joined by a plus. Nothing was written, not even a hidden directory."""
    before = {path.name for path in out.parent.iterdir()} | {"registry"}
    try:
        merge(base, adapters, out, **options)
    except RegistryError as error:
        assert {path.name for path in out.parent.iterdir()} <= before
        return rules(error)
    raise AssertionError(f"{out} was merged")


def rules(error: RegistryError) -> str:
    """``damaged:`` before them says that the input is no sound file, so that no rule about merging was asked."""
    assert error.hint, error.message
    named = {finding.rule for finding in error.findings} or {error.code}
    assert error.exit_code in {3, 6}, error.message
    return ("damaged: " if error.exit_code == 3 else "") + "+".join(sorted(named))


def logits(model: Any, **inputs: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval()(**{"input_ids": TOKENS, **inputs})[0]
        return found


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return float((one - other).abs().max() / other.abs().max())


def loaded(kind: Any, out: Path, **options: Any) -> Any:
    """The model of a checkpoint: everything that the class has is in the file, and the other way round."""
    model, told = kind.from_pretrained(out, output_loading_info=True, **options)
    assert not any(told.values()), told
    return model.eval()


def by_peft(model: Any, adapter: Path, into: Path) -> Tensors:
    """PEFT's own merge, under the names that transformers gives the tensors on disk. Takes the model."""
    done = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(safe_merge=False)
    if isinstance(done, PreTrainedModel):
        done.save_pretrained(into)
        return tensors_of(into)
    return {name: tensor.detach() for name, tensor in done.state_dict().items()}


def untied(model: Any) -> Any:
    """The same model with a matrix of its own for the output."""
    config = copy.deepcopy(model.config)
    config.tie_word_embeddings = False
    other = type(model)(config).to(model.dtype)
    other.load_state_dict(model.state_dict())
    return other.eval()


def is_tied(model: Any) -> bool:
    return (
        isinstance(model, PreTrainedModel)
        and model.get_output_embeddings() is not None
        and model.get_output_embeddings().weight is model.get_input_embeddings().weight
    )


@dataclass
class Tally:
    """``differ`` elements of ``elements`` are not PEFT's, in the tensors ``others``; the farthest is ``steps`` numbers of its
    type away. ``excess`` is how far elements are from the float64 sum beyond the rounding to their type, in units of
    float32's last place at the largest number of the tensor."""

    merges: int = 0
    elements: int = 0
    differ: int = 0
    steps: int = 0
    excess: float = 0.0
    others: set[str] = field(default_factory=set)

    def add(self, other: Tally) -> None:
        self.merges += other.merges
        self.elements += other.elements
        self.differ += other.differ
        self.steps = max(self.steps, other.steps)
        self.excess = max(self.excess, other.excess)
        self.others |= other.others


def steps(ours: Tensor, theirs: Tensor) -> Tensor:
    """How many numbers of the type lie between."""
    kind = torch.int16 if ours.element_size() == 2 else torch.int32
    one, other = (each.contiguous().view(kind).to(torch.int64) for each in (ours, theirs))
    least = torch.iinfo(kind).min
    one, other = (torch.where(each < 0, least - each, each) for each in (one, other))
    return (one - other).abs()


def excess(found: Tensor, exact: Tensor, before: Tensor | None) -> float:
    """``before`` is the base's own tensor, if it has one of that shape."""
    expected, ours = exact.to(torch.float64), found.to(torch.float64)
    limits = torch.finfo(found.dtype)
    exponent = torch.frexp(expected.abs().clamp(min=limits.smallest_normal)).exponent - 1
    half = torch.ldexp(torch.full_like(expected, limits.eps / 2), exponent)
    over = ((ours - expected).abs() - half).clamp(min=0).max()
    sizes = [expected.abs().max()]
    if before is not None and before.shape == found.shape:
        old = before.to(torch.float64)
        sizes += [old.abs().max(), (expected - old).abs().max()]
    largest = torch.stack(sizes).max().clamp(min=limits.smallest_normal)
    return float(over / (torch.finfo(torch.float32).eps * largest))


def held_against(ours: Mapping[str, Tensor], peft: Mapping[str, Tensor], exact: Mapping[str, Tensor],
                 base: Mapping[str, Tensor]) -> Tally:  # fmt: skip
    """Every tensor of ours against both oracles, and the base's bytes where nothing was to change."""
    found = Tally(merges=1)
    for name, tensor in ours.items():
        before = base.get(name)
        if name not in exact or (before is not None and torch.equal(exact[name], before.to(torch.float64))):
            assert before is not None, name
            assert torch.equal(tensor.view(torch.uint8), before.view(torch.uint8)), name
            continue
        assert exact[name].dtype == torch.float64
        assert (tensor.dtype, tensor.shape) == (peft[name].dtype, exact[name].shape), name
        distance = steps(tensor, peft[name])
        found.elements += distance.numel()
        found.excess = max(found.excess, excess(tensor, exact[name], before))
        if bool(distance.any()):
            found.others.add(name)
            found.differ += int((distance > 0).sum())
            found.steps = max(found.steps, int(distance.max()))
    assert found.elements, "nothing was changed"
    return found
