"""``README.md``: what a model card says about itself between its first two ``---`` lines, and below them.

PEFT, transformers, TRL, Axolotl and LLaMA-Factory all write one, and people edit it; so the front matter is held to
YAML, but a field of another type than usual is as good as absent. Bytes that are no UTF-8 become U+FFFD.
The fields: https://huggingface.co/docs/hub/model-cards#model-card-metadata
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from registry.errors import MalformedFileError
from registry.formats.git_lfs import is_lfs_pointer, lfs_pointer_error
from registry.formats.hyperparameters import MAX_ENTRIES, fact_text, fact_texts, hyperparameters
from registry.formats.plain_data import mapping, text, texts
from registry.formats.yaml_text import MAX_BYTES as MAX_FRONT_MATTER
from registry.formats.yaml_text import parse_yaml

#: Far more than prose needs; cards with embedded images exist.
MAX_BYTES = 1 << 22

_FENCE = re.compile(r"---[ \t]*\Z")
_AXOLOTL = re.compile(r"<summary>\s*See axolotl config\s*</summary>")
_AXOLOTL_VERSION = re.compile(r"axolotl version: `([\w.+-]{1,40})`", re.ASCII)
_BULLET = re.compile(r"[-*] +([A-Za-z_]\w{0,60}) ?[: ] *(\S.*)", re.ASCII)
_HYPERPARAMETERS = "The following hyperparameters were used during training:"
_VERSION = re.compile(r"v?[0-9][\w.+-]{0,60}", re.ASCII)
#: TRL's tags for what it did.
_TRL_STAGES = ("sft", "dpo", "grpo", "kto", "orpo", "ppo", "rloo", "reward-trainer")
_TRL_METHOD = re.compile(r"^This model was trained with ([A-Za-z][\w-]{0,30})[.,]", re.ASCII | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Card:
    """``model_index`` is left raw, for :mod:`registry.formats.model_index`; ``body`` is the Markdown below."""

    base_model: tuple[str, ...] = ()
    library_name: str | None = None
    tags: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    license: str | None = None
    pipeline_tag: str | None = None
    model_index: object = None
    body: str = ""
    body_line: int = 1  #: the number of the body's first line in the file


def front_matter(
    card: bytes, *, where: str = "README.md", error: type[MalformedFileError] = MalformedFileError
) -> str | None:
    """The YAML between the first two ``---`` lines, None if the card does not begin with one.

    Raises ``error`` for a card that ends before the second: it was cut off.
    """
    return _split(card, where, error)[0]


def parse_card(
    data: bytes,
    *,
    where: str = "README.md",
    max_front_matter: int = MAX_FRONT_MATTER,
    error: type[MalformedFileError] = MalformedFileError,
) -> Card:
    yaml, yaml_line, body, body_line = _split(data, where, error)
    document = parse_yaml(yaml or "", where=where, max_bytes=max_front_matter, first_line=yaml_line, error=error)
    meta = mapping(document)
    return Card(
        base_model=texts(meta.get("base_model")),
        library_name=text(meta.get("library_name")),
        tags=texts(meta.get("tags")),
        datasets=texts(meta.get("datasets")),
        license=text(meta.get("license")),
        pipeline_tag=text(meta.get("pipeline_tag")),
        model_index=meta.get("model-index"),
        body=body,
        body_line=body_line,
    )


def card_facts(card: Card, *, where: str = "README.md") -> dict[str, object]:
    """What the card says about the training, see :func:`registry.formats.training.training_facts` for the names.

    An Axolotl config counts most (it is what was run), then the Trainer's list, then the front matter.
    """
    found: dict[str, object] = {
        "base_model": next(iter(fact_texts(card.base_model)), None),
        "datasets": fact_texts(card.datasets),
        "library_name": fact_text(card.library_name),
        "license": fact_text(card.license),
        "pipeline_tag": fact_text(card.pipeline_tag),
        "tags": fact_texts(card.tags),
    }
    versions = dict(islice(_versions(card.body), MAX_ENTRIES))
    tools = {tool for tool in ("axolotl", "llama-factory", "trl", "unsloth") if tool in card.tags}
    if "trl" in card.tags:
        found["stage"] = next((stage for stage in _TRL_STAGES if stage in card.tags), None)
    if method := "huggingface/trl" in card.body and _TRL_METHOD.search(card.body):
        tools.add("trl")
        found["stage"] = method[1].lower()
    found |= hyperparameters(dict(_bullets(card.body, _HYPERPARAMETERS)))
    if axolotl := _AXOLOTL.search(card.body):
        tools.add("axolotl")
        if version := _AXOLOTL_VERSION.search(card.body, axolotl.end()):
            versions["axolotl"] = version[1]
        found |= hyperparameters(_axolotl_config(card, axolotl.end(), where))
    found["framework_versions"] = dict(sorted(versions.items()))
    found["tools"] = sorted(tools)
    return {name: value for name, value in found.items() if value not in (None, [], {})}


def _split(card: bytes, where: str, error: type[MalformedFileError]) -> tuple[str | None, int, str, int]:
    """Front matter, the number of its first line, body, the number of its first line."""
    if is_lfs_pointer(card):
        raise lfs_pointer_error(where, error)
    if len(card) > MAX_BYTES:
        raise error(
            where,
            f"is {len(card):,} bytes long, more than the {MAX_BYTES:,} that are read",
            hint="keep images and data beside the card, not inside it",
        )
    whole = card.decode("utf-8-sig", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    lines = whole.split("\n")
    first = next((index for index, line in enumerate(lines) if line.strip()), 0)
    if not _FENCE.match(lines[first]):
        return None, 1, whole, 1
    for index in range(first + 1, len(lines)):
        if _FENCE.match(lines[index]):
            return "\n".join(lines[first + 1 : index]), first + 2, "\n".join(lines[index + 1 :]), index + 2
    raise error(
        where,
        f"ends in the middle: the front matter that begins in line {first + 1} is not closed by line {len(lines)}",
        code="truncated-file",
        hint="get the file again, or close the front matter with a line of ---",
    )


def _axolotl_config(card: Card, start: int, where: str) -> Mapping[str, object]:
    """The YAML in the first code fence below the summary; its lines are counted in the file."""
    opening = re.compile(r"^```ya?ml[ \t]*\n", re.MULTILINE).search(card.body, start)
    if opening is None:
        return {}
    closing = card.body.find("\n```", opening.end() - 1)
    return mapping(
        parse_yaml(
            card.body[opening.end() : closing if closing >= 0 else len(card.body)],
            where=f"{where} (Axolotl config)",
            first_line=card.body_line + card.body.count("\n", 0, opening.end()),
        )
    )


def _versions(body: str) -> Iterator[tuple[str, str]]:
    """``- PEFT 0.15.1`` and TRL's ``- PEFT: 0.15.1`` below "Framework versions"."""
    for name, value in _bullets(body, "Framework versions"):
        if _VERSION.fullmatch(value):
            yield name.lower(), value


def _bullets(body: str, heading: str) -> Iterator[tuple[str, str]]:
    """``- name: value`` and ``- name value`` lines that follow the heading, up to the first line of another kind."""
    _, found, after = body.partition(heading)
    started = False
    for line in after.split("\n") if found else ():
        if bullet := _BULLET.fullmatch(line.strip()):
            started = True
            yield bullet[1], bullet[2].strip()
        elif line.strip() or started:
            return
