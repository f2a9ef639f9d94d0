"""Catalogs as large as wanted, with everything that a search can ask for.

The rows go straight into the tables: through the writer a hundred thousand versions take half an hour. That they are
the rows the writer makes is checked each time, on the first few: :func:`check`. Only the audit stays empty; no search
and no look-up reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path

from sqlalchemy import Connection, insert
from sqlmodel import Session, SQLModel

from registry.catalog import schema
from registry.catalog.apply import summary_text
from registry.catalog.engine import reading, sqlite_engine, writing
from registry.catalog.tables import AdapterRow, AliasRow, BlobRow, EvaluationRow, TagRow, TargetRow, VersionRow
from registry.catalog.writer import SqlWriter
from registry.domain.base_model import BaseModelId
from registry.domain.digest import Digest
from registry.domain.evaluation import Evaluation
from registry.domain.manifest import FileEntry, Manifest, Target
from registry.domain.names import AdapterName, AliasName
from registry.domain.tensors import TensorSpec

#: Share of the adapters, in thousandths, by base model; the last one is rare.
BASES = {
    "Qwen/Qwen2.5-0.5B-Instruct": 300,
    "meta-llama/Llama-3.1-8B-Instruct": 300,
    "mistralai/Mistral-7B-v0.3": 200,
    "openai-community/gpt2": 199,
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": 1,
}
COMMON_BASE, RARE_BASE = "Qwen/Qwen2.5-0.5B-Instruct", "TinyLlama/TinyLlama-1.1B-Chat-v1.0"
RANKS = (8, 16, 16, 16, 32, 32, 64, 4, 8, 128)
ATTENTION = ("k_proj", "o_proj", "q_proj", "v_proj")
TARGETS = (("q_proj", "v_proj"), ATTENTION, (*ATTENTION, "down_proj", "gate_proj", "up_proj"))
RARE_TARGET = "lm_head"  #: one adapter in a hundred
LANGUAGES = ("de", "en", "fr", "ja", "pl")
_TABLES = (AdapterRow, VersionRow, AliasRow, TagRow, TargetRow, BlobRow, EvaluationRow)
_CHUNK = 2000


@dataclass(frozen=True, slots=True)
class Entry:
    """A version and what goes with it."""

    adapter: AdapterName
    number: int
    manifest: Manifest
    tags: dict[str, str]
    evaluations: tuple[Evaluation, ...]
    aliases: tuple[str, ...]

    @property
    def at(self) -> str:
        """Later numbers later, no two at once."""
        serial = int(self.adapter.name[-6:])
        return f"2026-01-01T00:{self.number // 60:02d}:{self.number % 60:02d}.{serial:06d}Z"


def build(path: Path, *, adapters: int, versions: int) -> None:
    """``versions`` of each of ``adapters``, numbered in the order of a year in which every adapter is trained again."""
    check()
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = sqlite_engine(path)
    schema.ensure(engine, lambda _digest: [])
    with writing(engine) as connection:
        _insert(connection, entries(adapters, versions), versions)


def check() -> None:
    """Rows that this file makes are the rows that the writer makes."""
    small = list(entries(40, 3))
    by_writer, by_insert = sqlite_engine(None), sqlite_engine(None)
    with writing(by_writer) as connection:
        SQLModel.metadata.create_all(connection)
        with Session(bind=connection) as session:
            for entry in small:
                _write(SqlWriter(session, actor="", now=lambda at=entry.at: at), entry)
    with writing(by_insert) as connection:
        SQLModel.metadata.create_all(connection)
        _insert(connection, iter(small), 3)
    for table in (row.__table__ for row in _TABLES):
        query = table.select().order_by(*table.primary_key.columns)
        with reading(by_writer) as one, reading(by_insert) as other:
            if one.execute(query).all() != other.execute(query).all():
                raise SystemExit(f"table {table.name}: the benchmark's rows are not the writer's")


def entries(adapters: int, versions: int) -> Iterator[Entry]:
    for number in range(1, versions + 1):
        for index in range(adapters):
            yield _entry(index, number, newest=number == versions)


def _entry(index: int, number: int, *, newest: bool) -> Entry:
    serial = index * 1000 + number
    mixed = serial * 2654435761 % 2**32  # Knuth's multiplicative hash: scattered, the same every time
    rank, targets = RANKS[mixed % 10], TARGETS[mixed // 10 % 3]
    if index % 100 == 7:
        targets = (*targets, RARE_TARGET)
    manifest = replace(
        _template(_base(index), rank, targets),
        tensor_identity=Digest.of(b"tensors %d" % serial),
        files=(
            FileEntry("adapter_config.json", Digest.of(b"config %d" % (mixed % 1000)), 800),
            FileEntry("adapter_model.safetensors", Digest.of(b"weights %d" % serial), rank * 65536 + mixed % 4096),
        ),
    )
    tags = {"customer": f"c{index % 5000:04d}", "language": LANGUAGES[mixed // 30 % 5]}
    acc, other, perplexity = (mixed // divisor % 1000 / 1000 for divisor in (7, 11, 13))
    evaluations = (
        Evaluation("acc", acc, task="arc_easy", higher_is_better=True),
        Evaluation("perplexity", 2 + 30 * perplexity, task="wikitext", higher_is_better=False),
        Evaluation("acc", other, task="hellaswag", higher_is_better=True),
    )
    aliases = ("production",) if newest and index % 10 == 3 else ()
    if newest and index % 1000 == 11:
        aliases = (*aliases, "canary")
    return Entry(
        AdapterName.parse(f"team-{index % 50:02d}/support-{index:06d}"),
        number,
        manifest,
        tags,
        evaluations if mixed % 3 else (),
        aliases,
    )


def _base(index: int) -> str:
    place = index * 7919 % 1000
    for base, share in BASES.items():
        if place < share:
            return base
        place -= share
    return COMMON_BASE


@cache
def _template(base: str, rank: int, targets: tuple[str, ...]) -> Manifest:
    return Manifest(
        peft_type="LORA",
        variant="lora",
        base_model=BaseModelId(base, raw=base),
        task_type="CAUSAL_LM",
        targets=tuple(Target(f"model.layers.{layer}.{name}", rank, 32.0, 32 / rank) for layer in range(2) for name in targets),
        tensors=(TensorSpec("base_model.model.a", "F32", (rank, 1024), 0, rank * 4096),),
        tensor_identity=Digest.of(b""),
        files=(),
    )


def _write(writer: SqlWriter, entry: Entry) -> None:
    version, _ = writer.add_version(entry.adapter, entry.manifest)
    writer.set_tags(version, entry.tags)
    writer.add_evaluations(version, entry.evaluations)
    for alias in entry.aliases:
        writer.move_alias(entry.adapter, AliasName(alias), entry.number)


def _insert(connection: Connection, found: Iterator[Entry], versions: int) -> None:
    version_id = 0
    while chunk := list(islice(found, _CHUNK)):
        rows: dict[type[SQLModel], list[dict[str, object]]] = {table: [] for table in _TABLES}
        for entry in chunk:
            version_id += 1
            _add_rows(rows, entry, version_id, versions)
        for table, values in rows.items():
            if values:
                connection.execute(insert(table), values)


def _add_rows(rows: dict[type[SQLModel], list[dict[str, object]]], entry: Entry, version_id: int, versions: int) -> None:
    manifest, key = entry.manifest, entry.adapter.key
    if entry.number == 1:
        name = {"namespace": str(entry.adapter.namespace), "name": str(entry.adapter.name)}
        rows[AdapterRow].append({"key": key, **name, "next_number": versions + 1})
    rows[VersionRow].append(
        {
            "id": version_id,
            "adapter": key,
            "number": entry.number,
            "digest": manifest.digest,
            "created_at": entry.at,
            "newest": entry.number == versions,
            "base": (manifest.base_model.id or "").lower(),
            "peft_type": manifest.peft_type,
            "task_type": manifest.task_type,
            "rank": manifest.rank,
            "parameters": manifest.parameters,
            "bytes": manifest.bytes,
            "tensor_identity": manifest.tensor_identity,
            "summary": summary_text(manifest, {}),
            "findings": "[]",
        }
    )
    digests = {manifest.digest, *(file.digest for file in manifest.files)}
    rows[BlobRow] += [{"digest": digest, "version_id": version_id} for digest in sorted(digests)]
    rows[TargetRow] += [{"name": name, "version_id": version_id} for name in manifest.target_modules]
    rows[TagRow] += [{"version_id": version_id, "key": tag, "value": value} for tag, value in entry.tags.items()]
    rows[AliasRow] += [
        {"adapter": key, "key": alias, "name": alias, "number": entry.number} for alias in sorted(entry.aliases)
    ]
    last = {evaluation.metric: place for place, evaluation in enumerate(entry.evaluations)}
    rows[EvaluationRow] += [
        {
            "version_id": version_id,
            **evaluation.document(),
            "at": entry.at,
            "latest": last[evaluation.metric] == place,
            "latest_of_task": True,
        }
        for place, evaluation in enumerate(entry.evaluations)
    ]
