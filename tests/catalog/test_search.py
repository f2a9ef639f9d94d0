"""Search says what a plain loop over all versions says, and pages are slices of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.catalog.journal import MemoryJournal
from registry.catalog.sql import SqlCatalog
from registry.domain.base_model import BaseModelId
from registry.domain.digest import Digest
from registry.domain.evaluation import Evaluation
from registry.domain.manifest import FileEntry, Manifest, Target
from registry.domain.names import AdapterName
from registry.domain.query import MetricCondition, VersionQuery
from registry.domain.version import Version

BASES = ("Org/A", "Org/B")
TARGETS = ("q_proj", "v_proj", "down_proj")


def manifest(salt: int, base: str, rank: int | None, targets: tuple[str, ...]) -> Manifest:
    size = 10 + salt % 7
    return Manifest(
        peft_type="LORA",
        variant="lora",
        base_model=BaseModelId(base),
        task_type="CAUSAL_LM" if salt % 2 else None,
        targets=tuple(Target(f"layers.0.{name}", rank, 8.0, None) for name in targets),
        tensors=(),
        tensor_identity=Digest.of(str(salt).encode()),
        files=(FileEntry("x", Digest.of(str(salt).encode()), size),),
    )


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["one", "two", "three", "Four"]),
        st.sampled_from(BASES),
        st.none() | st.sampled_from([4, 8, 16, 64]),
        st.sets(st.sampled_from(TARGETS), min_size=1),
        st.lists(st.sampled_from([0.1, 0.5, 0.9]), max_size=3),
        st.booleans(),
    ),
    max_size=12,
)


def filled(rows: list[tuple]) -> tuple[SqlCatalog, list[Version], dict[str, list[float]]]:
    catalog = SqlCatalog(None, MemoryJournal())
    scores: dict[str, list[float]] = {}
    with catalog.writing() as writer:
        for salt, (name, base, rank, targets, values, yanked) in enumerate(rows):
            version, _ = writer.add_version(AdapterName.parse(name), manifest(salt, base, rank, tuple(sorted(targets))))
            for value in values:
                writer.add_evaluations(version, [Evaluation("acc", value, higher_is_better=True)])
            scores[version.reference] = values
            if yanked:
                writer.yank(version, "because")
    return catalog, catalog.search(VersionQuery(all_versions=True, limit=1000)), scores


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=ROWS,
    base=st.none() | st.sampled_from(BASES),
    ranks=st.tuples(st.none() | st.just(8), st.none() | st.just(16)),
    targets=st.sets(st.sampled_from(TARGETS), max_size=2),
    threshold=st.none() | st.sampled_from([0.1, 0.5, 0.9]),
    all_versions=st.booleans(),
)
def test_search_finds_what_a_loop_finds(rows, base, ranks, targets, threshold, all_versions) -> None:
    catalog, versions, scores = filled(rows)
    newest: dict[str, int] = {}
    for version in versions:
        if version.yanked is None:
            newest[version.adapter.key] = max(newest.get(version.adapter.key, 0), version.number)

    def fits(version: Version) -> bool:
        rank = version.summary["rank"]
        values = scores[version.reference]
        low, high = ranks
        return (
            (all_versions or newest.get(version.adapter.key) == version.number)
            and (base is None or version.summary["base_model"]["id"] == base)
            and (low is None or (rank is not None and rank >= low))
            and (high is None or (rank is not None and rank <= high))
            and targets <= set(version.summary["target_modules"])
            and (threshold is None or (bool(values) and values[-1] >= threshold))
        )

    metrics = () if threshold is None else (MetricCondition.parse(f"acc>={threshold}"),)
    query = VersionQuery(
        base=base, ranks=ranks, targets=tuple(targets), metrics=metrics, all_versions=all_versions, limit=1000
    )
    found = [version.reference for version in catalog.search(query)]
    assert sorted(found) == sorted(version.reference for version in versions if fits(version))


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=ROWS,
    sort=st.sampled_from([None, "name", "created", "rank", "bytes", "parameters", "acc"]),
    reverse=st.booleans(),
    size=st.integers(1, 4),
)
def test_pages_are_slices_of_the_whole(rows, sort, reverse, size) -> None:
    catalog, _, _ = filled(rows)
    whole = catalog.search(VersionQuery(sort=sort, reverse=reverse, all_versions=True, limit=1000))
    paged: list[Version] = []
    while True:
        after = paged[-1].reference if paged else None
        page = catalog.search(
            VersionQuery(sort=sort, reverse=reverse, all_versions=True, limit=size, after=after)
        )
        paged += page
        if len(page) < size:
            break
    assert [version.reference for version in paged] == [version.reference for version in whole]


def test_the_best_comes_first_by_the_metrics_own_direction() -> None:
    catalog = SqlCatalog(None, MemoryJournal())
    with catalog.writing() as writer:
        for salt, (name, value) in enumerate([("one", 0.5), ("two", 0.9), ("three", 0.1)]):
            version, _ = writer.add_version(AdapterName.parse(name), manifest(salt, "Org/A", 8, ("q_proj",)))
            writer.add_evaluations(version, [Evaluation("acc", value), Evaluation("wer", value)])
    names = [str(version.adapter.name) for version in catalog.search(VersionQuery(sort="acc"))]
    assert names == ["two", "one", "three"]
    names = [str(version.adapter.name) for version in catalog.search(VersionQuery(sort="wer"))]
    assert names == ["three", "one", "two"]


@pytest.mark.parametrize("text", ["%", "_", "'", '"', "\\", "; DROP TABLE version"])
def test_what_looks_like_sql_is_text(text: str, tmp_path: Path) -> None:
    catalog = SqlCatalog(tmp_path / "catalog.db", MemoryJournal())
    with catalog.writing() as writer:
        writer.add_version(AdapterName.parse("one"), manifest(0, "Org/A", 8, ("q_proj",)))
    assert catalog.search(VersionQuery(text=text)) == []
    assert catalog.search(VersionQuery(base=text, targets=(text,), tags=((text, text),))) == []
    assert len(catalog.search(VersionQuery(text="on"))) == 1
