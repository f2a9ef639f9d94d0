"""The factors fit the weight they change, in every layout that a base stores."""

from __future__ import annotations

import pytest

from registry.domain.finding import Severity
from registry.domain.tensors import TensorSpec
from tests.checks.bases import GPT2, HIDDEN, LLAMA, VOCABULARY, base, finding, noticed, subject
from tests.variants.adapters import pair, tensor

GPT = base(GPT2, model_type="gpt2", architecture="GPT2LMHeadModel")
K = "model.layers.0.self_attn.k_proj"


def conv(groups: int, kernel: int = 3) -> list[TensorSpec]:
    return [tensor("conv.lora_A.weight", 8, 16, kernel), tensor("conv.lora_B.weight", 32, 8 // groups, 1)]


def embedding(rows: int) -> list[TensorSpec]:
    return [
        tensor("model.embed_tokens.lora_embedding_A", 8, rows),
        tensor("model.embed_tokens.lora_embedding_B", HIDDEN, 8),
    ]


@pytest.mark.parametrize(("inputs", "outputs", "wrong"), [(64, 32, 0), (32, 64, 2), (64, 16, 1), (63, 32, 1)])
def test_a_linear_layer(inputs: int, outputs: int, wrong: int) -> None:
    one = subject(pair(K, inputs=inputs, outputs=outputs))
    assert noticed(one) == ["wrong-shape"] * wrong


def test_the_finding_says_what_is_needed() -> None:
    found = finding(subject(pair(K, inputs=64, outputs=16)), "wrong-shape")
    assert found.where == f"base_model.model.{K}.lora_B.weight"
    assert "(32, r)" in found.message


def test_conv1d_stores_its_weight_the_other_way_round() -> None:
    path = "transformer.h.0.attn.c_attn"
    assert noticed(subject(pair(path, inputs=HIDDEN, outputs=3 * HIDDEN), GPT)) == []
    assert "wrong-shape" in noticed(subject(pair(path, inputs=3 * HIDDEN, outputs=HIDDEN), GPT))


def test_the_conv1d_of_a_decoder_inside_another_model() -> None:
    tensors = {f"decoder.{name}": shape for name, shape in GPT2.items()}
    on = base(
        tensors,
        model_type="vision-encoder-decoder",
        architecture="VisionEncoderDecoderModel",
        decoder={"model_type": "gpt2"},
    )
    path = "decoder.transformer.h.0.attn.c_attn"
    config = {"task_type": "SEQ_2_SEQ_LM"}
    assert noticed(subject(pair(path, inputs=HIDDEN, outputs=3 * HIDDEN), on, **config)) == []
    assert "wrong-shape" in noticed(subject(pair(path, inputs=3 * HIDDEN, outputs=HIDDEN), on, **config))


def test_a_whole_conv1d_weight_is_as_stored() -> None:
    whole = [tensor("transformer.h.0.mlp.c_proj.weight", 4 * HIDDEN, HIDDEN)]
    attention = pair("transformer.h.0.attn.c_attn", inputs=HIDDEN, outputs=3 * HIDDEN)
    assert noticed(subject([*attention, *whole], GPT, modules_to_save=["c_proj"])) == []


def test_a_whole_module_inside_the_layers_has_the_shape_of_the_base() -> None:
    whole = [tensor(f"model.layers.{layer}.mlp.up_proj.weight", 95 + layer, 64) for layer in range(2)]
    assert noticed(subject([*pair(K), *whole], modules_to_save=["up_proj"])) == ["wrong-shape"]


def test_an_embedding() -> None:
    assert noticed(subject(embedding(128))) == []
    assert noticed(subject(embedding(130))) == ["wrong-shape"]


def test_an_embedding_of_its_own_size_if_the_file_brings_it() -> None:
    own = tensor("model.embed_tokens.base_layer.weight", 130, HIDDEN)
    assert noticed(subject([*embedding(130), own])) == ["vocabulary-resized"]


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution(groups: int) -> None:
    on = base({"conv.weight": (32, 16 // groups, 3)}, model_type="made-up")
    assert noticed(subject(conv(groups), on)) == []
    assert "wrong-shape" in noticed(subject(conv(groups, kernel=5), on))


@pytest.mark.parametrize("shape", [(4, 48, 64), (4, 64, 48)], ids=["out first", "in first"])
def test_fused_experts_in_either_layout(shape: tuple[int, ...]) -> None:
    on = base({"model.layers.0.mlp.experts.gate_up_proj": shape}, model_type="made-up")
    config = {"target_parameters": ["experts.gate_up_proj"]}
    path = "model.layers.0.mlp.experts"
    assert noticed(subject(pair(path, rank=4 * 8, inputs=64, outputs=48), on, **config)) == []
    assert noticed(subject(pair(path, rank=4 * 8, inputs=64, outputs=32), on, **config)) == ["wrong-shape"]


def test_the_magnitude_of_dora_has_one_number_per_output() -> None:
    right, wrong = (tensor(f"{K}.lora_magnitude_vector", size) for size in (32, 64))
    assert noticed(subject([*pair(K), right], use_dora=True)) == []
    assert noticed(subject([*pair(K), wrong], use_dora=True)) == ["wrong-shape"]


def test_a_bias_that_is_added_is_applied_and_never_merged() -> None:
    """PEFT's ``lora_bias`` needs no bias in the base to load, only to merge."""
    added = tensor(f"{K}.lora_B.bias", 32)
    assert noticed(subject([*pair(K), added], lora_bias=True)) == ["bias-added"]
    assert finding(subject([*pair(K), added], lora_bias=True), "bias-added").severity is Severity.WARNING
    on = base({**LLAMA, f"{K}.bias": (32,)})
    assert noticed(subject([*pair(K), added], on, lora_bias=True)) == []


def test_a_bias_that_is_replaced_needs_a_bias() -> None:
    on = base({**LLAMA, f"{K}.bias": (32,)})
    replaced = tensor(f"{K}.base_layer.bias", 32)
    assert noticed(subject([*pair(K), replaced], bias="lora_only")) == ["bias-without-base"]
    assert noticed(subject([*pair(K), replaced], on, bias="lora_only")) == []


def test_a_packed_weight_hides_its_shape() -> None:
    on = base(
        {**LLAMA, f"{K}.weight": (1024, 1), f"{K}.weight.absmax": (32,)},
        dtypes={f"{K}.weight": "U8"},
        quantization_config={"quant_method": "bitsandbytes"},
    )
    assert noticed(subject(pair(K, inputs=1, outputs=1), on)) == ["shapes-unchecked", "quantized-base"]


@pytest.mark.parametrize(("method", "shape"), [("gptq", (8, 32)), ("awq", (64, 4))])
def test_gptq_and_awq_show_it_all_the_same(method: str, shape: tuple[int, int]) -> None:
    packed = {name: size for name, size in LLAMA.items() if not name.startswith(K)} | {f"{K}.qweight": shape}
    quantization = {"quant_method": method, "bits": 4}
    on = base(packed, dtypes={f"{K}.qweight": "I32"}, quantization_config=quantization)
    assert noticed(subject(pair(K), on)) == ["quantized-base"]
    assert "wrong-shape" in noticed(subject(pair(K, outputs=64), on))


def test_a_head_that_is_replaced_whole_brings_its_bias() -> None:
    on = base({**LLAMA, "score.weight": (3, HIDDEN)}, architecture="LlamaForSequenceClassification")
    whole = [*pair(K), tensor("score.weight", 5, HIDDEN), tensor("score.bias", 5)]
    found = noticed(subject(whole, on, modules_to_save=["score"], task_type="TOKEN_CLS"))
    assert "bias-without-base" not in found


def test_a_head_that_is_brought_reads_a_width_of_the_base() -> None:
    config = {"modules_to_save": ["score"], "task_type": "SEQ_CLS"}
    for width, said in ((HIDDEN, False), (HIDDEN + 1, True)):
        found = noticed(subject([*pair(K), tensor("score.weight", 2, width)], **config))
        assert ("wrong-shape" in found) is said


def test_rows_of_tokens_are_as_wide_as_the_embedding() -> None:
    for width, said in ((HIDDEN, False), (HIDDEN + 1, True)):
        rows = tensor("model.embed_tokens.token_adapter.trainable_tokens_delta", 2, width)
        found = noticed(subject([*pair(K), rows], trainable_token_indices={"embed_tokens": [1, 5]}))
        assert ("wrong-shape" in found) is said


@pytest.mark.parametrize(("inputs", "said"), [(HIDDEN, False), (VOCABULARY, True)])
def test_the_output_that_is_the_input_embedding_is_a_linear_layer(inputs: int, said: bool) -> None:
    stored = {name: shape for name, shape in LLAMA.items() if name != "lm_head.weight"}
    on = base(stored, tie_word_embeddings=True, vocab_size=VOCABULARY)
    outputs = VOCABULARY if inputs == HIDDEN else HIDDEN
    found = noticed(subject([*pair(K), *pair("lm_head", inputs=inputs, outputs=outputs)], on))
    assert ("wrong-shape" in found) is said


def test_an_embedding_has_no_factors_of_a_linear_layer() -> None:
    wrong = subject(pair("model.embed_tokens", inputs=HIDDEN, outputs=VOCABULARY))
    assert "lora_embedding_A" in finding(wrong, "wrong-shape").message
    assert noticed(subject(embedding(VOCABULARY))) == []
