"""Real architectures, tiny: the class a base is saved from, the class that is trained on it, and what is adapted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import transformers as hf

#: Forms of LoRA that every architecture is trained in.
FORMS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True, "alpha_pattern": {"q_proj": 32}},
    "dora": {"use_dora": True},
    "biases": {"bias": "all"},
}

_DECODER = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_ENCODER = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}
_GPT2 = {
    "vocab_size": 64,
    "n_positions": 16,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_T5 = {"vocab_size": 64, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
_VIT = {**_ENCODER, "image_size": 8, "patch_size": 4}
_TOWER = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 8,
          "patch_size": 4}  # fmt: skip
_MOE = {**_DECODER, "num_experts": 4, "num_experts_per_tok": 2}
_STAGES = {"depths": [1, 1], "num_attention_heads": [1, 2]}
_TEXT = {"vocab_size": 64, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
_OPT = {"vocab_size": 64, "hidden_size": 24, "ffn_dim": 40, "num_hidden_layers": 2, "num_attention_heads": 2,
        "word_embed_proj_dim": 24, "max_position_embeddings": 32}  # fmt: skip
_QFORMER = {**_TEXT, "encoder_hidden_size": 24, "cross_attention_frequency": 1}
_AUDIO = {"d_model": 24, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 40, "num_mel_bins": 8,
          "max_source_positions": 16}  # fmt: skip
_TILES = {**_TOWER, "num_global_layers": 1, "attention_heads": 2, "vision_output_dim": 48,
          "intermediate_layers_indices": [0], "supported_aspect_ratios": [[1, 1]]}  # fmt: skip
_WHISPER = {
    "vocab_size": 64,
    "d_model": 16,
    **{f"{side}_{key}": size for side in ("encoder", "decoder") for key, size in
       {"layers": 2, "attention_heads": 2, "ffn_dim": 24}.items()},
    "num_mel_bins": 8,
    "max_source_positions": 16,
    "max_target_positions": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}  # fmt: skip


@dataclass(frozen=True)
class BaseCase:
    """``query`` is an adapted module of layer 0, as the adapter calls it; ``forms`` are those PEFT has for its targets;
    ``part`` is the part of the base's config that the trained class is made from."""

    name: str
    config: str
    sizes: Mapping[str, Any]
    saved: str
    trained: str
    task: str | None
    query: str
    targets: Any
    forms: tuple[str, ...] = tuple(FORMS)
    options: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""

    def model_config(self) -> Any:
        return getattr(hf, self.config)(**self.sizes)

    def base(self) -> Any:
        return getattr(hf, self.saved)(self.model_config())

    def model(self) -> Any:
        config = self.model_config()
        config.num_labels = 3
        return getattr(hf, self.trained)(getattr(config, self.part) if self.part else config)


def _case(name: str, config: str, sizes: Mapping[str, Any], classes: str, task: str | None, query: str, targets: Any,
          forms: tuple[str, ...] = tuple(FORMS), **options: Any) -> BaseCase:  # fmt: skip
    saved, _, trained = classes.partition(" → ")
    trained, _, part = trained.partition(": ")
    return BaseCase(name, config, sizes, saved, trained or saved, task, query, targets, forms, options, part)


_LLAMA_Q = "model.layers.0.self_attn.q_proj"
_EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
_ONE = ("lora",)

CASES = (
    _case("llama", "LlamaConfig", _DECODER, "LlamaForCausalLM", "CAUSAL_LM", _LLAMA_Q, "all-linear"),
    _case("llama embeddings", "LlamaConfig", _DECODER, "LlamaForCausalLM", "CAUSAL_LM", _LLAMA_Q,
          ["q_proj", "embed_tokens", "lm_head"]),
    _case("llama without a task", "LlamaConfig", _DECODER, "LlamaForCausalLM", None, _LLAMA_Q, ["q_proj"]),
    _case("llama classifier", "LlamaConfig", _DECODER, "LlamaForCausalLM → LlamaForSequenceClassification", "SEQ_CLS",
          _LLAMA_Q, ["q_proj"]),
    _case("llama answers", "LlamaConfig", _DECODER, "LlamaForCausalLM → LlamaForQuestionAnswering", "QUESTION_ANS",
          "transformer.layers.0.self_attn.q_proj", ["q_proj"]),
    _case("llama embedder", "LlamaConfig", _DECODER, "LlamaForCausalLM → LlamaModel", "FEATURE_EXTRACTION",
          "layers.0.self_attn.q_proj", ["q_proj"]),
    _case("llama saved bare", "LlamaConfig", _DECODER, "LlamaModel → LlamaForCausalLM", "CAUSAL_LM", _LLAMA_Q,
          ["q_proj"]),
    _case("qwen2 tied", "Qwen2Config", {**_DECODER, "tie_word_embeddings": True}, "Qwen2ForCausalLM", "CAUSAL_LM",
          _LLAMA_Q, ["q_proj", "embed_tokens", "lm_head"]),
    _case("gemma", "GemmaConfig", {**_DECODER, "head_dim": 8}, "GemmaForCausalLM", "CAUSAL_LM", _LLAMA_Q, "all-linear"),
    _case("phi-3", "Phi3Config", _DECODER, "Phi3ForCausalLM", "CAUSAL_LM", "model.layers.0.self_attn.qkv_proj",
          "all-linear"),
    _case("mixtral", "MixtralConfig", {**_DECODER, "num_local_experts": 4}, "MixtralForCausalLM", "CAUSAL_LM", _LLAMA_Q,
          ["q_proj", "gate"], ("lora", "rslora"), target_parameters=_EXPERTS),
    _case("qwen-moe", "Qwen2MoeConfig", {**_DECODER, "num_experts": 4, "moe_intermediate_size": 8,
          "shared_expert_intermediate_size": 8}, "Qwen2MoeForCausalLM", "CAUSAL_LM", _LLAMA_Q,
          ["q_proj", "gate_proj"], ("lora", "rslora", "biases"), target_parameters=_EXPERTS[:1]),
    _case("gpt-2", "GPT2Config", _GPT2, "GPT2LMHeadModel", "CAUSAL_LM", "transformer.h.0.attn.c_attn",
          ["c_attn", "c_proj", "wte", "lm_head"]),
    _case("gpt-2 saved bare", "GPT2Config", _GPT2, "GPT2Model → GPT2LMHeadModel", "CAUSAL_LM",
          "transformer.h.0.attn.c_attn", ["c_attn"]),
    _case("gpt-neox", "GPTNeoXConfig", _ENCODER, "GPTNeoXForCausalLM", "CAUSAL_LM",
          "gpt_neox.layers.0.attention.query_key_value", ["query_key_value", "embed_in", "lm_head"]),
    _case("falcon", "FalconConfig", {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2,
          "num_attention_heads": 2, "bos_token_id": 1, "eos_token_id": 2}, "FalconForCausalLM", "CAUSAL_LM",
          "transformer.h.0.self_attention.query_key_value", "all-linear"),
    _case("opt", "OPTConfig", {"vocab_size": 64, "hidden_size": 16, "ffn_dim": 24, "num_hidden_layers": 2,
          "num_attention_heads": 2, "word_embed_proj_dim": 8, "max_position_embeddings": 32}, "OPTForCausalLM",
          "CAUSAL_LM", "model.decoder.layers.0.self_attn.q_proj", "all-linear"),
    _case("bert", "BertConfig", _ENCODER, "BertForMaskedLM", None, "bert.encoder.layer.0.attention.self.query",
          ["query", "dense"]),
    _case("bert classifier", "BertConfig", _ENCODER, "BertForMaskedLM → BertForSequenceClassification", "SEQ_CLS",
          "bert.encoder.layer.0.attention.self.query", ["query"]),
    _case("bert saved bare", "BertConfig", _ENCODER, "BertModel → BertForTokenClassification", "TOKEN_CLS",
          "bert.encoder.layer.0.attention.self.query", ["query"]),
    _case("distilbert", "DistilBertConfig", {"vocab_size": 64, "dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2,
          "max_position_embeddings": 32}, "DistilBertForMaskedLM → DistilBertForSequenceClassification", "SEQ_CLS",
          "distilbert.transformer.layer.0.attention.q_lin", ["q_lin"]),
    _case("roberta", "RobertaConfig", _ENCODER, "RobertaForMaskedLM → RobertaForSequenceClassification", "SEQ_CLS",
          "roberta.encoder.layer.0.attention.self.query", "all-linear"),
    _case("t5", "T5Config", _T5, "T5ForConditionalGeneration", "SEQ_2_SEQ_LM",
          "encoder.block.0.layer.0.SelfAttention.q", ["q", "wi", "shared"]),
    _case("t5 classifier", "T5Config", _T5, "T5ForConditionalGeneration → T5ForSequenceClassification", "SEQ_CLS",
          "transformer.encoder.block.0.layer.0.SelfAttention.q", ["q"]),
    _case("vit", "ViTConfig", _VIT, "ViTForImageClassification", None, "vit.layers.0.attention.q_proj",
          ["q_proj", "fc1", "projection"], modules_to_save=["classifier"]),
    _case("vit saved bare", "ViTConfig", _VIT, "ViTModel → ViTForImageClassification", None,
          "vit.layers.0.attention.q_proj", ["q_proj"], modules_to_save=["classifier"]),
    _case("whisper", "WhisperConfig", _WHISPER, "WhisperForConditionalGeneration", "SEQ_2_SEQ_LM",
          "model.encoder.layers.0.self_attn.q_proj", ["q_proj", "conv1"], ("lora", "rslora", "biases")),
    _case("whisper classifier", "WhisperConfig", _WHISPER,
          "WhisperForConditionalGeneration → WhisperForAudioClassification", None,
          "encoder.layers.0.self_attn.q_proj", ["q_proj"]),
)  # fmt: skip

#: Architectures and forms that PEFT loads and that are seldom seen, or are not to be merged: only the gate is held to them.
MORE_CASES = (
    _case("llama with added biases", "LlamaConfig", _DECODER, "LlamaForCausalLM", "CAUSAL_LM", _LLAMA_Q, "all-linear",
          _ONE, lora_bias=True),
    _case("whisper classifier saved whole", "WhisperConfig", {**_WHISPER, "classifier_proj_size": 20},
          "WhisperForConditionalGeneration → WhisperForAudioClassification", None,
          "encoder.layers.0.self_attn.q_proj", ["q_proj"], _ONE, modules_to_save=["classifier"]),
    _case("mixtral all-linear", "MixtralConfig", {**_DECODER, "num_local_experts": 4}, "MixtralForCausalLM", "CAUSAL_LM",
          _LLAMA_Q, "all-linear", ("lora", "rslora", "biases")),
    _case("qwen3-moe all-linear", "Qwen3MoeConfig", {**_MOE, "moe_intermediate_size": 12, "head_dim": 6},
          "Qwen3MoeForCausalLM", "CAUSAL_LM", _LLAMA_Q, "all-linear", _ONE),
    _case("olmoe all-linear", "OlmoeConfig", {**_MOE, "hidden_size": 24}, "OlmoeForCausalLM", "CAUSAL_LM", _LLAMA_Q,
          "all-linear", _ONE),
    _case("t5 one layer", "T5Config", _T5, "T5ForConditionalGeneration", "SEQ_2_SEQ_LM",
          "encoder.block.1.layer.0.SelfAttention.q", ["q", "wi"], _ONE, layers_to_transform=[1]),
    _case("modernbert answers", "ModernBertConfig", _ENCODER, "ModernBertForMaskedLM → ModernBertForQuestionAnswering",
          "QUESTION_ANS", "model.layers.0.attn.Wqkv", ["Wqkv"], _ONE),
    _case("modernbert embeddings", "ModernBertConfig", _ENCODER, "ModernBertForMaskedLM", None,
          "model.layers.0.attn.Wqkv", ["Wqkv", "tok_embeddings", "decoder"], _ONE),
    _case("electra embeddings", "ElectraConfig", {**_ENCODER, "embedding_size": 8}, "ElectraForMaskedLM", None,
          "electra.encoder.layer.0.attention.self.query", ["query", "word_embeddings", "generator_lm_head"], _ONE),
    _case("electra saved bare", "ElectraConfig", {**_ENCODER, "embedding_size": 8}, "ElectraModel → ElectraForCausalLM",
          "CAUSAL_LM", "electra.encoder.layer.0.attention.self.query", "all-linear", _ONE),
    _case("nomic-bert", "NomicBertConfig", {**_TEXT, "pad_token_id": 0}, "NomicBertModel", None, "layers.0.self_attn.q_proj",
          "all-linear", _ONE),
    _case("gte", "GteConfig", {**_ENCODER, "hidden_size": 32}, "GteModel", None, "layers.0.self_attn.q_proj", "all-linear",
          ("lora", "biases")),
    _case("jina", "JinaEmbeddingsV3Config", {**_ENCODER, "hidden_size": 40}, "JinaEmbeddingsV3Model", None,
          "layers.0.self_attn.q_proj", "all-linear", ("lora", "biases")),
    _case("electra on another head", "ElectraConfig", {**_ENCODER, "embedding_size": 8},
          "ElectraForTokenClassification → ElectraForSequenceClassification", "SEQ_CLS",
          "electra.encoder.layer.0.attention.self.query", ["query"], _ONE),
    _case("qwen-moe on another head", "Qwen2MoeConfig", {**_MOE, "hidden_size": 32, "moe_intermediate_size": 12},
          "Qwen2MoeForTokenClassification → Qwen2MoeForSequenceClassification", "SEQ_CLS", _LLAMA_Q, ["q_proj"], _ONE),
    _case("prophetnet", "ProphetNetConfig", {"vocab_size": 64, "hidden_size": 16, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
          **{f"num_{side}_{part}": 2 for side in ("encoder", "decoder") for part in ("layers", "attention_heads")},
          "max_position_embeddings": 40}, "ProphetNetForConditionalGeneration", "SEQ_2_SEQ_LM",
          "prophetnet.encoder.layers.0.self_attn.query_proj", ["query_proj", "word_embeddings"], _ONE),
    _case("beit", "BeitConfig", _TOWER, "BeitForImageClassification", None, "beit.layers.0.attention.q_proj",
          ["q_proj", "fc1"], _ONE, modules_to_save=["classifier"]),
    _case("dinov2", "Dinov2Config", _TOWER, "Dinov2Model → Dinov2ForImageClassification", None,
          "dinov2.encoder.layer.0.attention.q_proj", ["q_proj"], _ONE, modules_to_save=["classifier"]),
    _case("swin", "SwinConfig", {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [1, 1],
          "num_heads": [1, 2], "window_size": 2}, "SwinForImageClassification", None,
          "swin.encoder.layers.0.blocks.0.attention.q_proj", ["q_proj", "fc1", "reduction"], _ONE,
          modules_to_save=["classifier"]),
    _case("segformer", "SegformerConfig", {**_STAGES, "num_encoder_blocks": 2, "sr_ratios": [2, 1],
          "hidden_sizes": [8, 16], "patch_sizes": [3, 3], "strides": [2, 2], "mlp_ratios": [2, 2]},
          "SegformerForImageClassification", None, "segformer.stages.0.blocks.0.attention.q_proj", ["q_proj", "fc1"],
          _ONE, modules_to_save=["classifier"]),
    _case("clip vision", "CLIPConfig", {"vision_config": _TOWER, "text_config": _TEXT},
          "CLIPModel → CLIPVisionModel: vision_config", None, "encoder.layers.0.self_attn.q_proj", ["q_proj", "fc1"],
          _ONE),
    _case("mllama", "MllamaConfig", {"text_config": {**_TEXT, "num_key_value_heads": 2, "cross_attention_layers": [1],
          "pad_token_id": 0}, "vision_config": _TILES}, "MllamaForConditionalGeneration", "CAUSAL_LM",
          "model.language_model.layers.0.self_attn.q_proj", "all-linear", _ONE),
    _case("qwen2-audio", "Qwen2AudioConfig", {"text_config": {**_TEXT, "model_type": "qwen2", "num_key_value_heads": 2},
          "audio_config": _AUDIO, "audio_token_index": 63}, "Qwen2AudioForConditionalGeneration", "CAUSAL_LM",
          "model.language_model.layers.0.self_attn.q_proj", "all-linear", _ONE),
    _case("llava", "LlavaConfig", {"text_config": {**_TEXT, "model_type": "llama", "num_key_value_heads": 2},
          "vision_config": {**_TOWER, "model_type": "clip_vision_model"}, "image_token_index": 63},
          "LlavaForConditionalGeneration", "CAUSAL_LM", "model.language_model.layers.0.self_attn.q_proj", "all-linear",
          _ONE),
    _case("blip-2", "Blip2Config", {"text_config": {**_OPT, "model_type": "opt"}, "vision_config": _TOWER,
          "qformer_config": _QFORMER, "num_query_tokens": 4, "image_token_index": 63}, "Blip2ForConditionalGeneration",
          "CAUSAL_LM", "language_model.model.decoder.layers.0.self_attn.q_proj", "all-linear", _ONE),
)  # fmt: skip
