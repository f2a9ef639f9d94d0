"""A module is one place under its name on disk and its name in memory, whichever of the two the adapter and the base have."""

from __future__ import annotations

import pytest

from registry.checks.matching import Matching, match
from registry.checks.rule import Subject
from registry.domain.base_model import BaseModelSpec
from registry.domain.tensors import TensorSpec
from tests.checks.bases import base, noticed, subject
from tests.variants.adapters import pair, tensor

ON_DISK = {
    f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{part}.weight": shape
    for layer in range(2)
    for expert in range(4)
    for part, shape in {"w1": (24, 16), "w2": (16, 24), "w3": (24, 16)}.items()
}
IN_MEMORY = {
    f"model.layers.{layer}.mlp.experts.{name}": shape
    for layer in range(2)
    for name, shape in {"gate_up_proj": (4, 48, 16), "down_proj": (4, 16, 24)}.items()
}
#: Model type, class, and the same matrix as a checkpoint and as transformers 5 calls it.
SPELT = [
    ("vit", "ViTModel", "encoder.layer.0.attention.attention.query", "layers.0.attention.q_proj"),
    ("beit", "BeitModel", "encoder.layer.0.intermediate.dense", "layers.0.mlp.fc1"),
    ("swin", "SwinModel", "encoder.layers.0.blocks.0.attention.self.key",
     "encoder.layers.0.blocks.0.attention.k_proj"),
    ("segformer", "SegformerModel", "encoder.block.1.0.mlp.dense1", "stages.1.blocks.0.mlp.fc1"),
    ("llava", "LlavaForConditionalGeneration", "language_model.model.layers.0.self_attn.q_proj",
     "model.language_model.layers.0.self_attn.q_proj"),
    ("mllama", "MllamaForConditionalGeneration", "vision_model.transformer.layers.0.mlp.fc1",
     "model.vision_model.transformer.layers.0.mlp.fc1"),
    ("qwen2_audio", "Qwen2AudioForConditionalGeneration", "audio_tower.layers.0.fc1", "model.audio_tower.layers.0.fc1"),
    ("clip_text_model", "CLIPTextModel", "text_model.encoder.layers.0.mlp.fc1", "encoder.layers.0.mlp.fc1"),
    ("nomic_bert", "NomicBertModel", "encoder.layers.0.mlp.fc11", "layers.0.mlp.up_proj"),
    ("jina_embeddings_v3", "JinaEmbeddingsV3Model", "encoder.layers.0.mixer.out_proj", "layers.0.self_attn.o_proj"),
    ("gte", "GteModel", "encoder.layer.0.attention.o_proj", "layers.0.self_attn.o_proj"),
    ("pixio", "PixioModel", "encoder.layer.0.intermediate.dense", "layers.0.mlp.fc1"),
    ("vision-encoder-decoder", "VisionEncoderDecoderModel", "encoder.encoder.layer.0.attention.attention.query",
     "encoder.layers.0.attention.q_proj"),
]  # fmt: skip


def of(path: str, inputs: int = 16, outputs: int = 24) -> list[TensorSpec]:
    return pair(path, inputs=inputs, outputs=outputs)


@pytest.mark.parametrize(("model_type", "architecture", "disk", "memory"), SPELT, ids=[spelt[0] for spelt in SPELT])
def test_both_names_in_both_directions(model_type: str, architecture: str, disk: str, memory: str) -> None:
    mapping = {"base_model_class": architecture, "parent_library": "transformers"}
    for held in (disk, memory):
        on = base({f"{held}.weight": (24, 16)}, model_type=model_type, architecture=architecture)
        for said in (disk, memory):
            assert noticed(subject(of(said), on, task_type=None, auto_mapping=mapping)) == []
            assert noticed(subject(of(said, inputs=17), on, task_type=None, auto_mapping=mapping)) == ["wrong-shape"]


@pytest.mark.parametrize(
    ("path", "outputs", "found"),
    [
        ("model.layers.0.block_sparse_moe.experts.3.w1", 24, []),
        ("model.layers.0.mlp.experts.3.w3", 24, []),
        ("model.layers.0.block_sparse_moe.experts.3.w1", 48, ["wrong-shape"]),
        ("model.layers.0.block_sparse_moe.experts.4.w1", 24, ["no-match", "unmatched-target"]),
        ("model.layers.2.block_sparse_moe.experts.0.w1", 24, ["no-match", "unmatched-target"]),
        ("model.layers.0.block_sparse_moe.experts.٣.w1", 24, ["no-match", "unmatched-target"]),
        (f"model.layers.0.block_sparse_moe.experts.{'9' * 5000}.w1", 24, ["no-match", "unmatched-target"]),
    ],
)
def test_one_expert_on_a_base_that_holds_all_as_one_stack(path: str, outputs: int, found: list[str]) -> None:
    on = base(IN_MEMORY, model_type="mixtral", architecture="MixtralForCausalLM")
    assert noticed(subject(of(path, outputs=outputs), on)) == found


def test_a_lost_layer_is_said_in_the_adapter_s_own_spelling() -> None:
    on = base(
        {f"vit.layers.{layer}.attention.q_proj.weight": (24, 16) for layer in range(2)},
        model_type="vit",
        architecture="ViTForImageClassification",
    )
    lost = of("vit.encoder.layer.0.attention.attention.query")
    one = subject(lost, on, task_type=None, target_modules=["query"])
    assert noticed(one) == ["layer-without-tensors"]


@pytest.mark.parametrize("held", ["weights_in", "gate_proj", "up_proj"])
def test_a_matrix_that_memory_takes_apart(held: str) -> None:
    above = "encoder.layer.0.mlp"
    whole = {f"{above}.weights_in.weight": (48, 16)}
    parts = {f"{above}.{name}.weight": (24, 16) for name in ("gate_proj", "up_proj")}
    wanted = 48 if held == "weights_in" else 24
    for tensors in (whole, parts):
        on = base(tensors, model_type="dinov2", architecture="Dinov2Model")
        for outputs, found in ((wanted, []), (72 - wanted, ["wrong-shape"])):
            assert noticed(subject(of(f"{above}.{held}", outputs=outputs), on, task_type=None)) == found


@pytest.mark.parametrize("held", ["encoder.layers.0.attn.Wqkv", "layers.0.self_attn.v_proj"])
def test_an_attention_that_memory_takes_apart(held: str) -> None:
    whole = {"encoder.layers.0.attn.Wqkv.weight": (48, 16)}
    parts = {f"layers.0.self_attn.{name}.weight": (16, 16) for name in ("q_proj", "k_proj", "v_proj")}
    wanted = 48 if held.endswith("Wqkv") else 16
    for tensors in (whole, parts):
        on = base(tensors, model_type="nomic_bert", architecture="NomicBertModel")
        for outputs, found in ((wanted, []), (64 - wanted, ["wrong-shape"])):
            assert noticed(subject(of(held, outputs=outputs), on, task_type=None)) == found


def test_nobody_misses_the_matrix_that_was_taken_apart() -> None:
    layer = {"attn.Wqkv": (48, 16), "mlp.fc2": (16, 24), "norm1": (16,)}
    stored = {f"encoder.layers.{n}.{name}.weight": shape for n in range(2) for name, shape in layer.items()}
    on = base(stored, model_type="nomic_bert", architecture="NomicBertModel")
    attention = [f"layers.{n}.self_attn.{name}_proj" for n in range(2) for name in "qkv"]
    down = [spec for n in range(2) for spec in of(f"layers.{n}.mlp.down_proj", 24, 16)]
    adapted = [*down, *(spec for path in attention for spec in of(path, 16, 16))]
    assert noticed(subject(adapted, on, task_type=None, target_modules="all-linear")) == []
    saved = [*down, *(tensor(f"{path}.weight", 16, 16) for path in attention)]
    assert noticed(subject(saved, on, task_type=None, modules_to_save=["self_attn"])) == []


def clip(hidden: int = 16) -> BaseModelSpec:
    layer = "encoder.layers.0.mlp.fc1.weight"
    towers = {f"vision_model.{layer}": (24, hidden), f"text_model.{layer}": (40, hidden)}
    return base(towers, model_type="clip", architecture="CLIPModel")


@pytest.mark.parametrize(("tower", "outputs"), [("Vision", 24), ("Text", 40)])
def test_the_class_of_one_tower_says_which_is_meant(tower: str, outputs: int) -> None:
    mapping = {"base_model_class": f"CLIP{tower}Model", "parent_library": "transformers"}
    config = {"task_type": None, "auto_mapping": mapping}
    path = "encoder.layers.0.mlp.fc1"
    assert noticed(subject(of(path, outputs=outputs), clip(), **config)) == []
    assert noticed(subject(of(f"{tower.lower()}_model.{path}", outputs=outputs), clip(), **config)) == []
    assert noticed(subject(of(path, outputs=64 - outputs), clip(), **config)) == ["wrong-shape"]
    assert "prefix-drift" in noticed(subject(of(path, outputs=outputs), clip(), task_type=None))


def test_experts_that_peft_names_without_their_module() -> None:
    """What PEFT 0.21 writes for ``target_modules="all-linear"`` on a mixture."""
    on = base({**IN_MEMORY, "model.layers.0.mlp.gate.weight": (4, 16)}, model_type="mixtral")
    experts = "model.layers.0.mlp.experts"
    tensors = [
        *pair(f"{experts}.base_layer", rank=4 * 16, inputs=16, outputs=48),
        *pair(experts, rank=4 * 8, inputs=24, outputs=16),
        *pair("model.layers.0.mlp.gate", inputs=16, outputs=4),
    ]
    one = subject(
        tensors,
        on,
        target_modules=["q_proj"],
        target_parameters=["gate_up_proj", "gate.weight", "down_proj"],
        rank_pattern={r".*\.gate_up_proj": 16},
    )
    assert noticed(one) == []
    assert [target.path for target in one.manifest.targets] == [
        f"{experts}.down_proj",
        f"{experts}.gate_up_proj",
        "model.layers.0.mlp.gate.weight",
    ]
    matching = match(one)
    assert matching is not None
    assert matching.matched == len(tensors)


def test_blip_2_has_no_backbone_of_one_name() -> None:
    path = "language_model.model.decoder.layers.0.fc1"
    on = base({f"{path}.weight": (24, 16)}, model_type="blip-2", architecture="Blip2ForConditionalGeneration")
    for task in ("CAUSAL_LM", "SEQ_2_SEQ_LM", None):
        assert noticed(subject(of(path), on, task_type=task)) == []


@pytest.mark.parametrize(
    ("model_type", "stored", "said"),
    [
        ("prophetnet", "word_embeddings", "decoder.word_embeddings"),
        ("udop", "patch_embed.proj", "encoder.embed_patches.proj"),
        ("t5", "shared", "encoder.embed_tokens"),
    ],
)
def test_what_a_checkpoint_holds_once_has_its_names_in_memory(model_type: str, stored: str, said: str) -> None:
    shape = (16, 3, 4, 4) if stored == "patch_embed.proj" else (64, 16)
    sides = {f"{side}.layers.0.fc1.weight": (24, 16) for side in ("encoder", "decoder")}
    for tensors, found in ((sides, True), ({}, False)):
        on = base({f"{stored}.weight": shape, **tensors}, model_type=model_type, architecture="Made")
        whole = subject([*of("encoder.layers.0.fc1"), tensor(f"{said}.weight", *shape)], on, task_type=None,
                        modules_to_save=[said])  # fmt: skip
        assert (said in match_of(whole).homes) is found


def match_of(one: Subject) -> Matching:
    matching = match(one)
    assert matching is not None
    return matching
