"""What a repository's README says about it, as the Hub makes it searchable: the fields of its front matter, and the tags that come
of them.

The text is a stranger's. What is given on is plain data of bounded size, in a shape that clients take: a field that would break
whoever reads the card is left out, and a card that cannot be read is as good as none.

The tags: https://huggingface.co/docs/hub/model-cards#model-card-metadata and
https://huggingface.co/docs/hub/model-cards#linking-a-paper
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from registry.api.hub_protocol.trees import Entry, Remembered
from registry.errors import CorruptionError, MalformedFileError
from registry.formats.model_card import front_matter
from registry.formats.plain_data import mapping, text, texts
from registry.formats.yaml_text import parse_yaml

if TYPE_CHECKING:
    from registry.api.hub_protocol.revisions import Revision
    from registry.api.hub_protocol.trees import Trees
    from registry.domain.digest import Digest

CARD = "README.md"
BASE = "base_model:"
_MAX_CARD = 1 << 20
_REMEMBERED = 1024
_MOST_TAGS, _LONGEST_TAG = 200, 200
_PAPER = re.compile(
    r"(?:arxiv\.org/(?:abs|pdf)|(?:huggingface\.co|hf\.co)/papers)/([0-9]{4}\.[0-9]{4,5})(?![0-9])", re.ASCII
)
_FIELD = re.compile(r"[A-Za-z][\w-]{0,99}", re.ASCII)
#: What a client's class for these fields has for itself, or takes in another form.
_TAKEN = frozenset(["self", "ignore_metadata_errors", "eval_results", "to_dict", "to_yaml", "get", "pop"])


@dataclass(frozen=True, slots=True)
class CardHead:
    """``fields`` are JSON's types; ``papers`` are arXiv's ids."""

    fields: Mapping[str, object] = field(default_factory=dict)
    papers: tuple[str, ...] = ()

    @property
    def own_tags(self) -> list[str]:
        """Those its author gave, without what it says of a base: which that is, the version knows."""
        return [tag for tag in texts(self.fields.get("tags")) if not tag.startswith(BASE)]

    def tags(self) -> Iterator[str]:
        found = [
            *texts(self.fields.get("pipeline_tag")),
            *self.own_tags,
            *texts(self.fields.get("language")),
            *(f"dataset:{name}" for name in texts(self.fields.get("datasets"))),
            *(f"arxiv:{paper}" for paper in self.papers),
            *(f"license:{name}" for name in texts(self.fields.get("license"))),
        ]
        return islice((tag for tag in found if len(tag) <= _LONGEST_TAG), _MOST_TAGS)


class Cards:
    """By the digest of the file, which never changes."""

    def __init__(self, trees: Trees) -> None:
        self._trees = trees
        self._read = Remembered(self._text_of, most=_REMEMBERED)

    def of(self, revision: Revision) -> CardHead:
        try:
            entry = revision.tree.get(CARD)
            if entry is None or entry.size > _MAX_CARD:
                return CardHead()
            fields, papers = json.loads(self._read(entry.digest))
        except CorruptionError:  # whoever asks for the file is told
            return CardHead()
        return CardHead(fields, tuple(papers))

    def _text_of(self, digest: Digest) -> str:
        """As JSON, which takes less room than what it means."""
        card = b"".join(self._trees.chunks(Entry(CARD, digest, 0)))
        papers = list(dict.fromkeys(_PAPER.findall(card.decode("utf-8", "replace"))))[:_MOST_TAGS]
        try:
            read = mapping(parse_yaml(front_matter(card) or "", where=CARD))
        except MalformedFileError:
            read = {}
        plain = json.loads(json.dumps(read), parse_constant=lambda _infinite: None)
        whole = json.dumps([_sound(plain), papers], ensure_ascii=False)
        return whole.encode("utf-8", "replace").decode()


def _sound(fields: Mapping[str, object]) -> dict[str, object]:
    found = {key: value for key, value in fields.items() if _FIELD.fullmatch(key) and key not in _TAKEN}
    if "model-index" in found and not _is_index(found["model-index"]):
        del found["model-index"]
    return found


def _is_index(value: object) -> bool:
    """Whether clients can read it; some raise where they cannot."""
    return isinstance(value, list) and all(
        isinstance(model, dict)
        and text(model.get("name")) is not None
        and isinstance(model.get("results"), list)
        and all(map(_is_result, model["results"]))
        for model in value
    )


def _is_result(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    task, dataset, metrics = (value.get(key) for key in ("task", "dataset", "metrics"))
    source = mapping(value.get("source"))
    return (
        isinstance(task, dict)
        and "type" in task
        and isinstance(dataset, dict)
        and {"type", "name"} <= set(dataset)
        and isinstance(metrics, list)
        and all(isinstance(metric, dict) and {"type", "value"} <= set(metric) for metric in metrics)
        and source == (value.get("source") or {})
        and ("name" not in source or "url" in source)
    )
