"""A repository as the object that ``model_info`` and ``list_models`` give."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from registry.api.hub_protocol.cards import BASE
from registry.domain.manifest import MERGED
from registry.domain.summary import Summary
from registry.formats.plain_data import text

if TYPE_CHECKING:
    from registry.api.hub_protocol.cards import CardHead
    from registry.api.hub_protocol.repositories import Repository
    from registry.api.hub_protocol.revisions import Revision
    from registry.api.hub_protocol.services import Services

#: PEFT's task types as the Hub's pipelines.
PIPELINES = {
    "CAUSAL_LM": "text-generation",
    "SEQ_2_SEQ_LM": "text2text-generation",
    "SEQ_CLS": "text-classification",
    "TOKEN_CLS": "token-classification",
    "QUESTION_ANS": "question-answering",
    "FEATURE_EXTRACTION": "feature-extraction",
}


def model_document(repository: Repository, revision: Revision, services: Services) -> dict[str, Any]:
    """Without its files: what the version knows of itself, and what its README says; of the base the former counts. No field says
    anything of Xet, which is not served."""
    shown, adapter = repository.shown, repository.adapter
    version = repository.history.version(revision.number)
    facts = version.summary if version is not None else Summary()
    base = base_of(facts, services)
    card = services.cards.of(revision)
    known = list(tags_of(facts, base)) if version is not None else []
    pipeline = PIPELINES.get(facts.task_type or "") or text(card.fields.get("pipeline_tag"))
    document: dict[str, Any] = {
        "_id": hashlib.sha256(adapter.name.key.encode()).hexdigest()[:24],
        "id": shown,
        "modelId": shown,
        "author": str(adapter.name.namespace),
        "sha": revision.commit,
        "lastModified": stamp(revision.at),
        "createdAt": stamp(repository.history.created_at),
        "private": adapter.private,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": list(dict.fromkeys([*known, *card.tags()])),
        "cardData": card_data(card, known, base),
        "library_name": "transformers" if facts.peft_type == MERGED else "peft",
    }
    if pipeline:
        document["pipeline_tag"] = pipeline
    return document


def card_data(card: CardHead, known: Sequence[str], base: str | None) -> dict[str, Any]:
    """The README's fields. Its author's tags if there are any, else the ``known`` ones; which the base is, the latter say."""
    tags = [*card.own_tags, *(tag for tag in known if tag.startswith(BASE))] if card.own_tags else known
    return {"library_name": "peft", **card.fields, "tags": list(tags)} | ({"base_model": base} if base else {})


def base_of(facts: Summary, services: Services) -> str | None:
    name = facts.base_model.name
    return services.registry.base_aliases().canonical(name) if name else None


def tags_of(facts: Summary, base: str | None) -> Iterator[str]:
    merged = facts.peft_type == MERGED
    if not merged:
        yield "peft"
    yield "safetensors"
    if facts.variant:
        yield facts.variant.lower()
    if base:
        yield f"base_model:{base}"
        yield f"base_model:{'merge' if merged else 'adapter'}:{base}"
    if pipeline := PIPELINES.get(facts.task_type or ""):
        yield pipeline


def stamp(at: str) -> str:
    """As clients parse a time: milliseconds, and a Z."""
    moment = at.removesuffix("Z").removesuffix("+00:00")
    whole, _, fraction = moment.partition(".")
    return f"{whole}.{(fraction + '000')[:3]}Z"
