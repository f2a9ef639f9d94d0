"""The output's ``config.json``: the base's, but for the keys that the merge makes untrue."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from registry.formats.model_config import ModelConfig

#: safetensors' names → torch's, as configs have them.
DTYPE_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_TIED = "tie_word_embeddings"
_OF_PACKING = frozenset({"quantization_config", "_pre_quantization_dtype"})
#: PEFT's task → the class's ending in transformers.
TASK_CLASSES = {
    "SEQ_CLS": "ForSequenceClassification",
    "TOKEN_CLS": "ForTokenClassification",
    "QUESTION_ANS": "ForQuestionAnswering",
    "CAUSAL_LM": "ForCausalLM",
}
_CLASS_ENDINGS = (
    "ForCausalLM",
    "LMHeadModel",
    "ForMaskedLM",
    "ForPreTraining",
    "ForConditionalGeneration",
    "DoubleHeadsModel",
    "Model",
)


class ConfigEdit:
    """A config that is changed key by key; ``result`` is None as long as nothing was."""

    def __init__(self, config: Mapping[str, object]) -> None:
        self._before = config
        self._config = copy.deepcopy(dict(config))

    @property
    def result(self) -> Mapping[str, object] | None:
        return None if self._config == self._before else self._config

    def untie(self) -> None:
        """In the text part as well, where the model or its text part would be tied without a word."""
        self._config[_TIED] = False
        for part in self._parts():
            part[_TIED] = False

    def resize(self, rows: int) -> None:
        """Wherever the vocabulary's size is written; else where the model's own would be."""
        holders = [part for part in (self._config, *self._parts()) if "vocab_size" in part] or [self._config]
        for holder in holders:
            holder["vocab_size"] = rows

    def store_as(self, dtype: str) -> None:
        """Under the key that the config has: transformers 5 writes ``dtype``, earlier ones ``torch_dtype``."""
        name = DTYPE_NAMES[dtype]
        for part in (self._config, *self._parts()):
            keys = [key for key in ("dtype", "torch_dtype") if key in part]
            for key in keys or (["dtype"] if part is self._config else []):
                part[key] = name

    def unpack(self, dtype: str | None) -> None:
        """Weights that are stored as numbers again, if packed ones were, then of this type."""
        for part in (self._config, *self._parts()):
            for key in _OF_PACKING & part.keys():
                del part[key]
        if dtype is not None:
            self.store_as(dtype)

    def become(self, task: str, labels: int | None) -> bool:
        """Another class of the same model, with so many labels. False where nobody knows what it is called."""
        names = ModelConfig(self._config).architectures
        ending = TASK_CLASSES.get(task)
        if not names or ending is None:
            return False
        stem = next((names[0].removesuffix(end) for end in _CLASS_ENDINGS if names[0].endswith(end)), None)
        if names[0].endswith(ending):
            stem = names[0].removesuffix(ending)
        if not stem:
            return False
        self._config["architectures"] = [stem + ending]
        if labels is not None and task in {"SEQ_CLS", "TOKEN_CLS"}:
            self.label(labels)
        return True

    def label(self, labels: int) -> None:
        """Names for so many labels, unless there are as many."""
        named = self._config.get("id2label")
        if isinstance(named, dict) and len(named) == labels:
            return
        self._config["id2label"] = {str(number): f"LABEL_{number}" for number in range(labels)}
        self._config["label2id"] = {f"LABEL_{number}": number for number in range(labels)}
        self._config.pop("num_labels", None)

    def _parts(self) -> list[dict[str, object]]:
        part = self._config.get("text_config")
        return [part] if isinstance(part, dict) else []
