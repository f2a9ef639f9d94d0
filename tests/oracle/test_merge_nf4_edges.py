"""``--base-view nf4`` where it is refused, and where a checkpoint is broken or odd."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from torch import Tensor

from registry.connect import Registry, connect
from registry.domain.base_model import BaseModelId
from registry.errors import MalformedFileError, RegistryError, RejectedError
from registry.formats.model_config import ModelConfig
from registry.formats.nf4 import MARK
from registry.operations.base_view import seen
from registry.operations.know_base import read_checkpoint, spec_of
from registry.plans.merge_plan import MergeOptions
from registry.transforms.live import merge_
from tests.cli.conftest import Adapters
from tests.oracle import nf4_oracle as oracle
from tests.oracle.nf4_oracle import config_of, llama, same, save_adapter, tensors_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
NF4 = MergeOptions(base_view="nf4")
UP = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(llama(), tmp_path_factory.mktemp("adapter"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("plain")
    llama().to(torch.bfloat16).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def packed(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = [name for name in tensors_of(plain) if "proj" in name]
    return oracle.pack(plain, tmp_path_factory.mktemp("packed") / "base", names, nested=True)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return connect(tmp_path / "registry")


def refusal(registry: Registry, base: Path, adapter: Path, out: Path, options: MergeOptions = NF4) -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        registry.merge(base, [adapter], out, options=options, device="cpu")
    assert not out.exists()
    assert caught.value.hint
    return caught.value


def test_without_the_option_a_packed_base_is_refused_with_the_way_out(
    registry: Registry, packed: Path, adapter: Path, tmp_path: Path
) -> None:
    error = refusal(registry, packed, adapter, tmp_path / "out", MergeOptions())
    assert (error.code, error.exit_code) == ("quantized-base", 6)
    assert "bitsandbytes NF4" in error.message
    assert "--base-view nf4" in str(error.hint)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq 4-bit"),
        ({"quant_method": "awq", "bits": 4}, "awq 4-bit"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes 8-bit"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}, "bitsandbytes FP4"),
        ({"bits": 2}, "unknown"),
    ],
)
@pytest.mark.parametrize("inner", [False, True])
def test_another_packing_is_refused_by_name(
    registry: Registry, plain: Path, adapter: Path, tmp_path: Path, settings: dict[str, Any], name: str, *, inner: bool
) -> None:
    shutil.copytree(plain, tmp_path / "base")
    holder = {"quantization_config": settings}
    oracle.edit_config(tmp_path / "base", **({"text_config": holder} if inner else holder))
    error = refusal(registry, tmp_path / "base", adapter, tmp_path / "out")
    assert (error.code, error.exit_code) == ("quantized-base", 6)
    assert name in error.message
    assert "--base-view" not in str(error.hint)
    error = refusal(registry, tmp_path / "base", adapter, tmp_path / "out", MergeOptions())
    assert "--base-view" not in str(error.hint)


def edit(name: str, change: Callable[[Tensor], Tensor | None]) -> Callable[[dict[str, Tensor]], None]:
    def apply(tensors: dict[str, Tensor]) -> None:
        changed = change(tensors.pop(name))
        if changed is not None:
            tensors[name] = changed

    return apply


def state(**changes: object) -> Callable[[Tensor], Tensor]:
    def apply(data: Tensor) -> Tensor:
        document = {**json.loads(bytes(data.tolist())), **changes}
        return torch.tensor(list(json.dumps(document).encode()), dtype=torch.uint8)

    return apply


def odd_scale(scales: Tensor) -> Tensor:
    scales[0] = float("nan")
    return scales


BROKEN = {
    "shape": (edit(UP + MARK, state(shape=[100, 81])), "nf4-state"),
    "block": (edit(UP + MARK, state(blocksize=128)), "nf4-state"),
    "type": (edit(UP + MARK, state(quant_type="fp4")), "nf4-state"),
    "cut-off": (edit(UP + MARK, lambda data: data[:-4].clone()), "truncated-file"),
    "wide-state": (edit(UP + MARK, lambda data: data.to(torch.float32)), "nf4-state"),
    "weight-gone": (edit(UP, lambda _data: None), "nf4-state"),
    "scales-gone": (edit(f"{UP}.absmax", lambda _data: None), "nf4-state"),
    "scales-short": (edit(f"{UP}.absmax", lambda data: data[:-1].clone()), "nf4-state"),
    "levels-wrong": (edit(f"{UP}.quant_map", lambda data: data * 2), "nf4-state"),
    "nested-levels-odd": (edit(f"{UP}.nested_quant_map", odd_scale), "nf4-state"),
    "nested-scale-odd": (edit(f"{UP}.nested_absmax", odd_scale), "nonfinite-tensor"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_packed_weight_that_disagrees_with_its_state_is_damage(
    registry: Registry, packed: Path, adapter: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(packed, tmp_path / "base")
    path = tmp_path / "base" / "model.safetensors"
    tensors = load_file(path)
    change, code = BROKEN[name]
    change(tensors)
    save_file(tensors, path)
    error = refusal(registry, tmp_path / "base", adapter, tmp_path / "out")
    assert isinstance(error, MalformedFileError)
    assert (error.exit_code, error.code) == (3, code)
    assert "model.safetensors" in error.message


def test_a_file_that_becomes_shorter_is_noticed(packed: Path, tmp_path: Path) -> None:
    base = shutil.copytree(packed, tmp_path / "base")
    stored = read_checkpoint(base)
    spec = spec_of(BaseModelId(None), ModelConfig(stored.config), [each for _, each in stored])
    with open(base / "model.safetensors", "r+b") as file:
        file.truncate(stored.shards[0].size // 2)
    with pytest.raises(MalformedFileError) as caught:
        seen(stored, spec, "nf4")
    assert caught.value.code == "changed-while-read"


def test_scales_may_lie_in_other_files_and_an_emptied_file_is_left_out(
    registry: Registry, packed: Path, adapter: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(packed, tmp_path / "base")
    tensors = tensors_of(base)
    (base / "model.safetensors").unlink()
    parts = {True: "model-00001-of-00002.safetensors", False: "model-00002-of-00002.safetensors"}
    weight_map = {name: parts[".weight." in name] for name in tensors}
    for file in parts.values():
        save_file({name: each for name, each in tensors.items() if weight_map[name] == file}, base / file)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    registry.merge(base, [adapter], tmp_path / "out", options=NF4, device="cpu")
    registry.merge(packed, [adapter], tmp_path / "expected", options=NF4, device="cpu")
    assert same(tensors_of(tmp_path / "out"), tensors_of(tmp_path / "expected"))
    assert [path.name for path in sorted((tmp_path / "out").glob("*.safetensors"))] == [parts[False]]
    written = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert set(written["weight_map"].values()) == {parts[False]}


def test_what_it_is_stored_as_can_be_said(registry: Registry, packed: Path, adapter: Path, tmp_path: Path) -> None:
    wide = MergeOptions(base_view="nf4", dtype="F32")
    registry.merge(packed, [(adapter, 0.0)], tmp_path / "wide", options=wide, device="cpu")
    registry.merge(packed, [(adapter, 0.0)], tmp_path / "out", options=NF4, device="cpu")
    assert same(
        {name: each.float() for name, each in tensors_of(tmp_path / "out").items()}, tensors_of(tmp_path / "wide")
    )
    assert config_of(tmp_path / "wide")["dtype"] == "float32"
    assert registry.verify(tmp_path / "wide", packed, [(adapter, 0.0)], options=NF4, whole=True).is_sound


def test_the_config_gets_the_type_of_what_was_unpacked(registry: Registry, adapter: Path, tmp_path: Path) -> None:
    llama().to(torch.float16).save_pretrained(tmp_path / "base")
    names = [name for name in tensors_of(tmp_path / "base") if "proj" in name]
    base = oracle.pack(tmp_path / "base", tmp_path / "packed", names)
    oracle.edit_config(base, dtype="bfloat16", text_config={"dtype": "bfloat16", "quantization_config": {}})
    registry.merge(base, [adapter], tmp_path / "out", options=NF4, device="cpu")
    config = config_of(tmp_path / "out")
    assert (config["dtype"], config["text_config"]) == ("float16", {"dtype": "float16"})


def test_modules_that_the_config_leaves_out_stay_as_they_are(
    registry: Registry, plain: Path, adapter: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(plain, tmp_path / "base")
    skipped = {"llm_int8_skip_modules": ["lm_head", "model.layers.1", "up_proj"]}
    oracle.edit_config(base, quantization_config={**oracle.QUANTIZATION, **skipped})
    registry.merge(base, [(adapter, 0.0)], tmp_path / "out", options=NF4, device="cpu")
    before, after = tensors_of(plain), tensors_of(tmp_path / "out")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if ".0." in name and "proj" in name and "up_proj" not in name}
    assert "quantization_config" not in config_of(tmp_path / "out")


def test_conv1d_and_weights_in_memory_are_refused(registry: Registry, tmp_path: Path, adapter: Path) -> None:
    config = hf.GPT2Config(vocab_size=32, n_positions=16, n_embd=80, n_layer=1, n_head=2)
    hf.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    gpt2 = save_adapter(hf.GPT2LMHeadModel(config), tmp_path / "adapter", targets=["c_attn"])
    error = refusal(registry, tmp_path / "gpt2", gpt2, tmp_path / "out")
    assert (error.code, error.exit_code) == ("nf4-conv1d", 6)
    with pytest.raises(RejectedError, match="as NF4 would show them"):
        merge_(dict(llama().named_parameters()), [adapter], options=NF4)


def test_the_command_line_merges_plans_and_verifies(packed: Path, adapter: Path, tmp_path: Path) -> None:
    adapters = Adapters(tmp_path / "registry")
    base, made, out = str(packed), str(adapter), str(tmp_path / "out")
    error = adapters.refusal("merge", base, made, "-o", out)
    assert (error["code"], "--base-view nf4" in error["hint"]) == ("quantized-base", True)
    planned = adapters("merge", base, made, "--plan", "--base-view", "nf4")
    assert "base view    nf4" in planned.out
    assert adapters.json("merge", base, made, "-o", out, "--base-view", "nf4")["base_view"] == "nf4"
    asked = ("verify", out, "--base", base, "--adapter", made, "--all")
    assert adapters(*asked, "--base-view", "nf4").code == 0
    assert adapters(*asked).code == 6
