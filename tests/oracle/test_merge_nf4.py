"""``--base-view nf4``: adapters folded into the base as QLoRA saw it, packed by bitsandbytes or about to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file
from torch import Tensor

from registry.connect import Registry, connect
from registry.formats.nf4 import MARK
from registry.plans.merge_plan import MergeOptions
from registry.transforms.workers import Cpu
from tests.oracle import nf4_oracle as oracle
from tests.oracle.nf4_oracle import DTYPES, config_of, llama, same, save_adapter, tensors_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
NF4 = MergeOptions(base_view="nf4")


class Bench:
    """Bases and an adapter on the disk, made once."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.adapter = save_adapter(llama(), place / "adapter")
        self.linear = [
            f"{name}.weight"
            for name, module in llama().named_modules()
            if isinstance(module, torch.nn.Linear) and name != "lm_head"
        ]
        self.delta: dict[str, Tensor] = {}
        tensors = load_file(self.adapter / "adapter_model.safetensors")
        for name, down in tensors.items():
            if name.endswith("lora_A.weight"):
                up = tensors[name.replace("lora_A", "lora_B")]
                module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
                self.delta[f"{module}.weight"] = 2.0 * up.double() @ down.double()

    def base(self, dtype: str) -> Path:
        place = self.place / dtype
        if not place.exists():
            llama().to(DTYPES[dtype]).save_pretrained(place)
        return place


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    hf.logging.set_verbosity_error()
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return connect(tmp_path / "registry")


def merged(registry: Registry, base: Path, adapter: Any, out: Path, **options: Any) -> dict[str, Tensor]:
    done = registry.merge(base, [adapter], out, options=MergeOptions(**options), device="cpu")
    assert done.verification.is_sound
    return tensors_of(out)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_and_unpacked_base_give_the_same_merge(
    bench: Bench, registry: Registry, tmp_path: Path, dtype: str, *, nested: bool
) -> None:
    base = bench.base(dtype)
    packed = oracle.pack(base, tmp_path / "packed", bench.linear, nested=nested)
    plain = oracle.plain(base, tmp_path / "plain", bench.linear, nested=nested)
    ours = merged(registry, packed, bench.adapter, tmp_path / "out", base_view="nf4")
    assert same(ours, merged(registry, plain, bench.adapter, tmp_path / "expected"))
    assert same(merged(registry, packed, (bench.adapter, 0.0), tmp_path / "zero", base_view="nf4"), tensors_of(plain))
    assert config_of(tmp_path / "out") == config_of(base)
    assert_rounded_once(ours, tensors_of(plain), bench.delta)


def assert_rounded_once(ours: dict[str, Tensor], base: dict[str, Tensor], delta: dict[str, Tensor]) -> None:
    for name, change in delta.items():
        exact = base[name].double() + change
        scale = torch.finfo(torch.float32).eps * exact.abs().max() * 4
        nearest = (exact.to(ours[name].dtype).double() - exact).abs()
        assert ((ours[name].double() - exact).abs() <= nearest + scale).all(), name
        assert (ours[name] != base[name]).double().mean() > 0.5


@pytest.mark.parametrize("elements", [100, 1 << 19])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_plain_base_is_rounded_to_what_would_have_been_packed(
    bench: Bench, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, elements: int
) -> None:
    monkeypatch.setattr(Cpu, "elements", elements)
    base = bench.base(dtype)
    plain = oracle.plain(base, tmp_path / "plain", bench.linear)
    ours = merged(registry, base, bench.adapter, tmp_path / "out", base_view="nf4")
    assert same(ours, merged(registry, plain, bench.adapter, tmp_path / "expected"))
    assert same(merged(registry, base, (bench.adapter, 0.0), tmp_path / "zero", base_view="nf4"), tensors_of(plain))
    assert config_of(tmp_path / "out") == config_of(base)


def test_what_transformers_packs_and_unpacks_is_what_we_see(bench: Bench, registry: Registry, tmp_path: Path) -> None:
    llama(hidden_size=64, intermediate_size=128).to(torch.bfloat16).save_pretrained(tmp_path / "base")
    adapter = save_adapter(llama(hidden_size=64, intermediate_size=128), tmp_path / "adapter")
    for nested in (False, True):
        how = hf.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=nested)
        model = hf.AutoModelForCausalLM.from_pretrained(
            tmp_path / "base", quantization_config=how, device_map="cpu", dtype="auto"
        )
        packed = tmp_path / f"packed-{nested}"
        model.save_pretrained(packed)
        assert any(name.endswith(MARK) for name in tensors_of(packed))
        expected = {
            name: tensor.detach() for name, tensor in model.dequantize(dtype=torch.bfloat16).state_dict().items()
        }
        ours = merged(registry, packed, (adapter, 0.0), tmp_path / f"out-{nested}", base_view="nf4")
        assert same(ours, expected)
        config = config_of(tmp_path / f"out-{nested}")
        assert config == config_of(tmp_path / "base")
        if not nested:
            assert same(ours, merged(registry, tmp_path / "base", (adapter, 0.0), tmp_path / "b", base_view="nf4"))
    loaded = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "out-True", dtype="auto")
    assert not hasattr(loaded.config, "quantization_config")
    assert same({name: tensor.detach() for name, tensor in loaded.state_dict().items()}, ours)


def test_it_is_recorded_planned_and_verified(bench: Bench, registry: Registry, tmp_path: Path) -> None:
    packed = oracle.pack(bench.base("bf16"), tmp_path / "packed", bench.linear)
    plan = registry.merge_plan(packed, [bench.adapter], options=NF4, device="cpu").document()
    assert (plan["base_view"], plan["tensors"]) == ("nf4", {"total": 21, "changed": 4, "copied": 7, "seen_as_nf4": 14})
    done = registry.merge(packed, [bench.adapter], tmp_path / "out", options=NF4, device="cpu", name="acme/merged")
    assert done.document()["base_view"] == "nf4"
    assert "* base view: nf4\n" in (tmp_path / "out" / "README.md").read_text()
    assert done.version is not None
    assert registry.show("acme/merged").manifest.training["merge"]["base_view"] == "nf4"
    assert registry.verify(tmp_path / "out", packed, [bench.adapter], options=NF4, whole=True).is_sound
    assert registry.verify(tmp_path / "out", bench.base("bf16"), [bench.adapter], options=NF4, whole=True).is_sound
    plainly = registry.verify(tmp_path / "out", bench.base("bf16"), [bench.adapter], whole=True)
    assert (len(plainly.altered), len(plainly.wrong)) == (10, 4)
    without = registry.merge_plan(bench.base("bf16"), [bench.adapter], device="cpu").document()
    assert (without["base_view"], without["tensors"]["seen_as_nf4"]) == ("16bit", 0)
