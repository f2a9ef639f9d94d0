"""``config.json``: what transformers wrote beside a base model's weights.

Only a few facts of it matter to an adapter. Fields of a multimodal model's language part stand in ``text_config``; a
field that is absent has the default of the model type's class, and those differ (``base_prefixes.toml``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from registry.errors import MalformedFileError
from registry.formats.base_classes import is_tied_by_default
from registry.formats.json_text import parse_json

NAME = "config.json"
MAX_BYTES = 4 << 20
MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A view of the parsed object; values of another type than the field's count as absent."""

    raw: Mapping[str, object]

    @property
    def model_type(self) -> str | None:
        return _text(self.raw.get("model_type"))

    @property
    def model_types(self) -> frozenset[str]:
        """Of the model, of its text part and of its decoder, which have classes of their own."""
        fields = (self.raw, self.text_config, self.raw.get("decoder"))
        found = (_text(one.get("model_type")) for one in fields if isinstance(one, dict))
        return frozenset(one for one in found if one is not None)

    @property
    def architectures(self) -> tuple[str, ...]:
        names = self.raw.get("architectures")
        return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()

    @property
    def text_config(self) -> Mapping[str, object]:
        inner = self.raw.get("text_config")
        return inner if isinstance(inner, dict) else {}

    @property
    def is_tied(self) -> bool:
        """Whether the output embedding is the input embedding. The model's own field goes before its text part's."""
        for fields in (self.raw, self.text_config):
            if isinstance(tied := fields.get("tie_word_embeddings"), bool):
                return tied
        return any(is_tied_by_default(_text(fields.get("model_type"))) for fields in (self.raw, self.text_config))

    @property
    def vocabulary(self) -> int | None:
        for fields in (self.raw, self.text_config):
            size = fields.get("vocab_size")
            if isinstance(size, int) and not isinstance(size, bool) and size > 0:
                return size
        return None

    @property
    def layers(self) -> int | None:
        """How many layers the model, or its text part, has in one row; None if the config does not say."""
        for fields in (self.raw, self.text_config):
            count = fields.get("num_hidden_layers")
            if isinstance(count, int) and not isinstance(count, bool) and count > 0:
                return count
        return None

    @property
    def quantization(self) -> Mapping[str, object]:
        """``quantization_config``, of the model or of its text part; empty for a model that is not quantised."""
        for fields in (self.raw, self.text_config):
            if isinstance(settings := fields.get("quantization_config"), dict):
                return settings
        return {}


def parse_model_config(data: bytes, *, where: str = NAME) -> ModelConfig:
    """Read the file's bytes. Raises :class:`MalformedFileError` if it is not JSON or not an object."""
    document = parse_json(data, where=where, max_bytes=MAX_BYTES, max_depth=MAX_DEPTH)
    if not isinstance(document, dict):
        raise MalformedFileError(
            where, "holds no JSON object", code="config-not-object", hint="get the base model's config.json again"
        )
    return ModelConfig(document)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
