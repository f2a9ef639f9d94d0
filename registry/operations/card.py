"""The model card of an adapter: what the Hub shows, and what people read before they load it.

1. Keep what its author wrote: the front matter's other fields, and the text. Only an empty template goes.
2. State what the registry knows: base, method, scores; each score once, the newest.
3. Behind the author's text, a section of our own between two marks, which the next card replaces.

Everything an adapter brings is a stranger's: in the front matter it is quoted, in the section it stands in code spans.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from registry.domain.evaluation import Evaluation
from registry.domain.finding import Finding, Severity
from registry.domain.manifest import Manifest
from registry.errors import MalformedFileError
from registry.formats.base_model_text import is_repository, resolve_base
from registry.formats.local_paths import local_paths, without_path
from registry.formats.model_card import Card, front_matter, parse_card
from registry.formats.model_index import read_model_index, write_model_index
from registry.formats.plain_data import mapping
from registry.formats.yaml_text import parse_yaml
from registry.formats.yaml_writer import write_yaml

_BEGIN, _END = "<!-- adapter-registry -->", "<!-- /adapter-registry -->"
#: The first line of huggingface_hub's template, which PEFT leaves behind with nothing filled in.
_TEMPLATE = "# Model Card for Model ID"
_ADAPTER_OF = "base_model:adapter:"
_LONGEST = 200
#: Paths that a warning names.
_NAMED = 3

#: PEFT's task → the Hub's tag, and the class of transformers that loads its base.
_TASKS = {
    "CAUSAL_LM": ("text-generation", "AutoModelForCausalLM"),
    "SEQ_2_SEQ_LM": (None, "AutoModelForSeq2SeqLM"),
    "SEQ_CLS": ("text-classification", "AutoModelForSequenceClassification"),
    "TOKEN_CLS": ("token-classification", "AutoModelForTokenClassification"),
    "QUESTION_ANS": ("question-answering", "AutoModelForQuestionAnswering"),
    "FEATURE_EXTRACTION": ("feature-extraction", "AutoModel"),
}
#: What the form of ``model-index`` demands and a task of no tag does not have.
_OTHER_TASK = "other"
#: Parameters of huggingface_hub.ModelCardData that are no fields of a card: a key so called breaks whoever reads the card.
_NO_FIELDS = ("eval_results", "ignore_metadata_errors", "self")


@dataclass(frozen=True, slots=True)
class CardSubject:
    """What a card is about. ``base`` is a repository, None if nobody knows it; ``written`` the README the adapter brings;
    ``repository`` and ``revision`` are where the card will stand."""

    name: str
    manifest: Manifest
    base: str | None = None
    evaluations: Sequence[Evaluation] = ()
    written: bytes | None = None
    reference: str | None = None
    repository: str | None = None
    revision: str | None = None


def model_card(subject: CardSubject) -> tuple[str, tuple[Finding, ...]]:
    """The text of ``README.md``, and warnings: where what the adapter brings could not be read, and of paths of a machine."""
    card, fields, findings = _written(subject.written)
    scores = _scores(subject, card)
    front = write_yaml(_front(subject, card, fields, scores))
    text = _text(card.body, subject.manifest.base_model.raw, subject.base)
    heading = [] if text else [f"# {_plain(subject.name)}", ""]
    lines = [
        "---",
        *front.splitlines(),
        "---",
        "",
        *heading,
        *([text, ""] if text else ()),
        *_section(subject, scores),
        "",
    ]
    whole = "\n".join(lines)
    return whole, (*findings, *says_paths("README.md", local_paths(whole)))


def says_paths(file: str, paths: Sequence[str]) -> Iterator[Finding]:
    """A warning about paths of somebody's machine that go out with a file."""
    if paths:
        more = f" and {len(paths) - _NAMED:,} more" if len(paths) > _NAMED else ""
        named = ", ".join(f"{path!r:.200}" for path in paths[:_NAMED])
        message = f"{file} names {named}{more}: as it seems a path on somebody's machine, and sent as it is"
        fix = "edit the file and push it anew, if that matters"
        yield Finding("local-path", Severity.WARNING, message, file, fix)


def _written(data: bytes | None) -> tuple[Card, Mapping[str, object], tuple[Finding, ...]]:
    if data is None:
        return Card(), {}, ()
    try:
        fields = mapping(parse_yaml(front_matter(data) or "", where="README.md"))
        return parse_card(data), fields, ()
    except MalformedFileError as error:
        fix = "mend it, so that what its author wrote is kept"
        left = Finding(
            "unreadable-card", Severity.WARNING, f"{error.message}; a new card takes its place", "README.md", fix
        )
        return Card(), {}, (left,)


def _scores(subject: CardSubject, card: Card) -> list[Evaluation]:
    """The registry's, and those that only the card states."""
    newest = {each.key: each for each in subject.evaluations}
    known = {(each.task, each.metric, each.split) for each in newest.values()}
    try:
        stated = read_model_index(card.model_index, where="README.md")
    except MalformedFileError:  # a score that is no finite number
        stated = ()
    return [*newest.values(), *(each for each in stated if (each.task, each.metric, each.split) not in known)]


def _front(
    subject: CardSubject, card: Card, fields: Mapping[str, object], scores: Sequence[Evaluation]
) -> dict[str, object]:
    manifest = subject.manifest
    tag, _ = _TASKS.get(manifest.task_type or "", (None, ""))
    pipeline = card.pipeline_tag or tag
    training = manifest.training
    datasets = [*card.datasets, *(name for name in _texts(training.get("datasets")) if name not in card.datasets)]
    tags = [each for each in card.tags if not each.startswith(_ADAPTER_OF)]
    tags += ["peft", *(["lora"] if manifest.peft_type == "LORA" else ())]
    tags += [f"{_ADAPTER_OF}{subject.base}"] if subject.base else []
    ours: dict[str, object] = {
        "library_name": "peft",
        "base_model": subject.base,
        "base_model_relation": "adapter" if subject.base else None,
        "pipeline_tag": pipeline,
        "license": fields.get("license") or training.get("license"),
        "datasets": [name for name in datasets if is_repository(name)],
        "tags": list(dict.fromkeys(tags)),
        "model-index": write_model_index(scores, name=subject.name, task_type=pipeline or _OTHER_TASK),
    }
    stated = {key: value for key, value in ours.items() if value}
    return {**stated, **{key: value for key, value in fields.items() if key not in ours and key not in _NO_FIELDS}}


def _text(body: str, trained_on: str | None, base: str | None) -> str:
    """The author's, without an earlier section of ours and without where the trainer had the base."""
    before, begins, rest = body.partition(_BEGIN)
    own = (before + rest.partition(_END)[2]) if begins else body
    if trained_on and base and is_local(trained_on):
        own = without_path(own, trained_on.strip(), base)
    return "" if _TEMPLATE in own else own.strip("\n")


def is_local(text: str) -> bool:
    """Whether it names something on one machine, and no repository."""
    return not is_repository(text) and ("/" in text or "\\" in text or resolve_base(text, None)[0].id is None)


def _section(subject: CardSubject, scores: Sequence[Evaluation]) -> Iterator[str]:
    manifest = subject.manifest
    ranks = sorted({each.rank for each in manifest.targets if each.rank is not None})
    scalings = sorted({each.scaling for each in manifest.targets if each.scaling is not None})
    base = subject.base
    revision = manifest.base_model.revision if base == manifest.base_model.id else None
    facts = [
        ("base", f"[{base}](https://huggingface.co/{base})" if base else "not known"),
        ("base revision", _code(revision or "")),
        ("method", _code(f"{manifest.peft_type} ({manifest.variant})")),
        ("rank", ", ".join(map(str, ranks))),
        ("scaling", ", ".join(f"{scaling:g}" for scaling in scalings)),
        ("targets", ", ".join(map(_code, manifest.target_modules))),
        ("saved whole", ", ".join(map(_code, manifest.extra_modules))),
        ("parameters", f"{manifest.parameters:,} ({manifest.dtype})"),
        ("version", _code(subject.reference or "")),
        ("manifest", _code(manifest.digest) if subject.reference else ""),
    ]
    yield from (_BEGIN, "## This adapter", "", "| | |", "|---|---|")
    yield from (f"| {name} | {value} |" for name, value in facts if value)
    yield from ("", "## How to load it", "", *_snippet(subject))
    if scores:
        yield from ("", "## Evaluations", "", "| task | metric | value | ± | n |", "|---|---|---:|---:|---:|")
        yield from (_score(each) for each in scores)
    recipe = [(key, _fact(value)) for key, value in sorted(manifest.training.items()) if key not in _ELSEWHERE]
    if any(value for _, value in recipe):
        yield from ("", "## Training", "", *(f"* {key.replace('_', ' ')}: {value}" for key, value in recipe if value))
    if manifest.lineage:
        yield from ("", "## Made from", "")
        for edge in manifest.lineage:
            weight = "" if edge.weight is None else f", weight {edge.weight:g}"
            yield f"* {_code(edge.kind)}: {_code(edge.reference or edge.parent)}{weight}"
    yield _END


#: Facts that the front matter and the first table state, and those that are paths on the trainer's machine.
_ELSEWHERE = ("base_model", "datasets", "library_name", "license", "pipeline_tag", "tags", "best_model_checkpoint")


def _snippet(subject: CardSubject) -> list[str]:
    _, loader = _TASKS.get(subject.manifest.task_type or "", (None, "AutoModel"))
    where = subject.repository or "OWNER/NAME"
    revision = f', revision="{subject.revision}"' if subject.revision else ""
    return [
        "```python",
        "from peft import PeftModel",
        f"from transformers import {loader}",
        "",
        f'base = {loader}.from_pretrained("{subject.base or "BASE"}")',
        f'model = PeftModel.from_pretrained(base, "{where}"{revision})',
        "```",
    ]


def _score(one: Evaluation) -> str:
    error = "" if one.stderr is None else f"{one.stderr:.4g}"
    metric = f"{one.metric},{one.filter}" if one.filter else one.metric
    return (
        f"| {_code(one.task or '')} | {_code(metric)} | {one.value:.6g} | {error} | {'' if one.n is None else one.n} |"
    )


def _fact(value: object) -> str:
    """Without paths, which say nothing to anybody else."""
    if isinstance(value, Mapping):
        return ", ".join(filter(None, (_fact(f"{key} {each}") for key, each in sorted(value.items()))))
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(_fact, value)))
    return "" if value is None or (isinstance(value, str) and ("/" in value or "\\" in value)) else _code(str(value))


def _texts(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list | tuple) else []


def _code(text: str) -> str:
    """A code span: nothing in it is Markdown, a link or HTML, and it leaves no table."""
    plain = "".join(char if char.isprintable() and char not in "`|" else " " for char in text).strip()[:_LONGEST]
    return f"`{plain}`" if plain else ""


def _plain(text: str) -> str:
    """Nothing that Markdown would take for more than text."""
    return "".join(char if char.isalnum() or char in "._-/@: " else " " for char in text)[:_LONGEST]
