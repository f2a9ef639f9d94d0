"""Search says what a plain loop over all versions says, in the order a plain sort says, and pages are slices of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.catalog import search as module
from registry.catalog.sql import SqlCatalog
from registry.domain.evaluation import Evaluation
from registry.domain.names import AdapterName, AliasName, Reference
from registry.domain.query import OPERATORS, SORTS, MetricCondition, MetricName, Position, VersionQuery
from registry.domain.version import Version
from registry.errors import InvalidInputError, NotFoundError
from tests.catalog.conftest import manifest, memory_catalog

#: The direction of each is stated with its values; ``odd`` has none.
METRICS = {"acc": True, "wer": False, "odd": None}


@dataclass
class Row:
    """A version as the loop sees it."""

    name: str
    base: str | None
    rank: int | None
    peft_type: str
    task_type: str | None
    targets: tuple[str, ...]
    size: int
    tags: dict[str, str]
    scores: list[tuple[str, str | None, float]]
    alias: str | None
    fate: str
    parents: tuple[int, ...] = ()  # salts
    number: int = 0
    id: int = 0
    aliases: set[str] = field(default_factory=set)

    @property
    def key(self) -> str:
        return AdapterName.parse(self.name).key

    @property
    def reference(self) -> str:
        return f"{self.key}@{self.number}"

    def latest(self, name: MetricName) -> float | None:
        values = [v for metric, task, v in self.scores if metric == name.metric and name.task in (None, task)]
        return values[-1] if values else None


BASES = st.sampled_from(["Org/A", "Org/B", "org/a"])
RANKS = st.sampled_from([4, 8, 16, 64])
TARGETS = st.sampled_from(["q_proj", "v_proj", "down_proj"])
TAGS = st.dictionaries(st.sampled_from(["k", "team"]), st.sampled_from(["v", "w"]), max_size=2)
VALUES = st.sampled_from([0.1, 0.5, 0.9])
NAMES = st.builds(MetricName, st.sampled_from(sorted(METRICS)), st.sampled_from([None, "arc", "arc/easy"]))
ALIASES = st.sampled_from(["production", "staging"])
ROWS = st.builds(
    Row,
    name=st.sampled_from(["one", "two", "One-more", "team/one", "Four"]),
    base=st.none() | BASES,
    rank=st.none() | RANKS,
    peft_type=st.sampled_from(["LORA", "IA3"]),
    task_type=st.none() | st.sampled_from(["CAUSAL_LM", "SEQ_CLS"]),
    targets=st.sets(TARGETS, min_size=1).map(lambda found: tuple(sorted(found))),
    size=st.sampled_from([10, 20]),
    tags=TAGS,
    scores=st.lists(
        st.tuples(st.sampled_from(sorted(METRICS)), st.sampled_from([None, "arc", "arc/easy"]), VALUES), max_size=4
    ),
    alias=st.none() | ALIASES,
    fate=st.sampled_from(["kept", "kept", "kept", "yanked", "deleted"]),
    parents=st.lists(st.integers(100, 102), max_size=3).map(tuple),
)
QUERIES = st.fixed_dictionaries(
    {},
    optional={
        "text": st.sampled_from(["one", "ONE", "team/", "o", "_", "%", "x"]),
        "base": BASES,
        "ranks": st.tuples(st.none() | RANKS, st.none() | RANKS),
        "targets": st.sets(TARGETS, max_size=2).map(tuple),
        "peft_type": st.sampled_from(["lora", "IA3"]),
        "task_type": st.sampled_from(["causal_lm", "SEQ_CLS"]),
        "tags": TAGS.flatmap(
            lambda tags: st.tuples(*(st.sampled_from([(key, value), (key, None)]) for key, value in tags.items()))
        ),
        "alias": ALIASES,
        "metrics": st.lists(st.builds(MetricCondition, NAMES, st.sampled_from(sorted(OPERATORS)), VALUES), max_size=2).map(tuple),
        "parent": st.integers(100, 102).map(lambda salt: manifest(salt).digest),
        "sort": st.sampled_from([*SORTS, "acc", "wer", "odd", "arc/acc", "arc/easy/wer"]),
        "reverse": st.booleans(),
        "all_versions": st.booleans(),
    },
)  # fmt: skip
FEW = st.sampled_from([0, 2, 500])  # whether a selective condition is asked first
QUICK = settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])


def filled(rows: list[Row]) -> SqlCatalog:
    catalog = memory_catalog()
    with catalog.writing() as writer:
        for salt, row in enumerate(rows):
            described = manifest(
                salt,
                base=row.base,
                rank=row.rank,
                targets=row.targets,
                peft_type=row.peft_type,
                task_type=row.task_type,
                size=row.size,
                parents=[manifest(parent).digest for parent in row.parents],
            )
            version, _ = writer.add_version(AdapterName.parse(row.name), described)
            row.number, row.id = version.number, salt + 1
            writer.set_tags(version, row.tags)
            for metric, task, value in row.scores:
                writer.add_evaluations(version, [Evaluation(metric, value, task, higher_is_better=METRICS[metric])])
            if row.alias is not None and row.fate != "deleted":
                writer.move_alias(version.adapter, AliasName(row.alias), version.number)
                for other in rows:
                    if other.key == row.key:
                        other.aliases.discard(row.alias)
                row.aliases.add(row.alias)
            fresh = writer.resolve(Reference(version.adapter, number=version.number))
            if row.fate == "yanked":
                writer.yank(fresh, "because")
            elif row.fate == "deleted":
                writer.delete(fresh, "because")
    return catalog


def expected(rows: list[Row], query: VersionQuery) -> list[str]:
    newest: dict[str, int] = {}
    for row in rows:
        if row.fate == "kept":
            newest[row.key] = max(newest.get(row.key, 0), row.number)
    low, high = query.ranks

    def is_shown(row: Row) -> bool:
        return row.fate == "kept" if query.parent is not None else newest.get(row.key) == row.number

    def fits(row: Row) -> bool:
        return (
            row.fate != "deleted"
            and (query.all_versions or query.alias is not None or is_shown(row))
            and (query.text is None or query.text.lower() in row.key)
            and (query.base is None or (row.base or "").lower() == query.base.lower())
            and (low is None or (row.rank is not None and row.rank >= low))
            and (high is None or (row.rank is not None and row.rank <= high))
            and set(query.targets) <= set(row.targets)
            and (query.peft_type is None or row.peft_type == query.peft_type.upper())
            and (query.task_type is None or row.task_type == query.task_type.upper())
            and (query.parent is None or query.parent in [manifest(salt).digest for salt in row.parents])
            and all(key in row.tags and value in (None, row.tags[key]) for key, value in query.tags)
            and (query.alias is None or query.alias in row.aliases)
            and all(
                (value := row.latest(condition.name)) is not None and OPERATORS[condition.operator](value, condition.value)
                for condition in query.metrics
            )
        )

    found = [row for row in rows if fits(row)]
    if query.sort in (None, "name"):
        found.sort(key=lambda row: (row.key, -row.number), reverse=query.reverse)
        return [row.reference for row in found]
    if query.sort in SORTS:
        falling = SORTS[query.sort]
        column = {"created": "id", "rank": "rank", "bytes": "size", "parameters": None}[query.sort]

        def value(row: Row) -> Any:
            return getattr(row, column) if column else 0
    else:
        name = MetricName.parse(query.sort)
        live = [row for row in rows if row.fate != "deleted"]
        stated = any(metric == name.metric for row in live for metric, _, _ in row.scores)
        falling = METRICS[name.metric] is not False or (not stated and name.metric != "wer")
        found = [row for row in found if row.latest(name) is not None]

        def value(row: Row) -> Any:
            return row.latest(name)

    known = [row for row in found if value(row) is not None]
    unknown = [row for row in found if value(row) is None]
    downwards = falling != query.reverse
    known.sort(key=lambda row: (value(row), row.id), reverse=downwards)
    unknown.sort(key=lambda row: row.id, reverse=downwards)
    return [row.reference for row in known + unknown]


def found(catalog: SqlCatalog, query: VersionQuery) -> list[str]:
    return references(catalog.search(query))


def references(versions: Sequence[Version]) -> list[str]:
    return [f"{version.adapter.key}@{version.number}" for version in versions]


@QUICK
@given(st.lists(ROWS, max_size=12), st.lists(QUERIES, min_size=4, max_size=8), FEW)
def test_search_finds_what_a_loop_finds_in_the_order_of_a_sort(
    rows: list[Row], queries: list[dict[str, Any]], few: int
) -> None:
    catalog = filled(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FEW", few)
        for options in queries:
            query = VersionQuery(**options, limit=1000)
            assert found(catalog, query) == expected(rows, query), query


@settings(QUICK, max_examples=6)
@given(st.lists(ROWS, min_size=4, max_size=12), QUERIES, st.integers(1, 3), FEW)
def test_pages_are_slices_of_the_whole_in_every_order(
    rows: list[Row], options: dict[str, Any], size: int, few: int
) -> None:
    catalog = filled(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FEW", few)
        for sort in [None, *SORTS, "acc", "arc/wer"]:
            chosen = {**options, "sort": sort}
            whole = found(catalog, VersionQuery(**chosen, limit=1000))
            looked_up: list[str] = []
            while page := found(catalog, VersionQuery(**chosen, limit=size, after=Position(looked_up[-1]) if looked_up else None)):
                assert len(page) <= size
                looked_up += page
            assert looked_up == whole, chosen
            paged: list[str] = []
            query = VersionQuery(**chosen, limit=size)
            while rows_of_page := catalog.search(query):
                paged += references(rows_of_page)
                query = query.behind(rows_of_page[-1])
            assert paged == whole, chosen


def test_a_page_goes_on_behind_a_row_that_is_no_longer_in_the_list() -> None:
    rows = [Row(name, None, 8, "LORA", None, ("q",), 10, {}, [], None, "kept") for name in ("a", "b", "c")]
    catalog = filled(rows)
    with catalog.writing() as writer:
        writer.yank(writer.resolve(Reference.parse("b")), "because")
    assert found(catalog, VersionQuery(after=Position("local/b@1"))) == ["local/c@1"]


@pytest.mark.parametrize("sort", [None, "created", "rank", "bytes", "acc"])
@pytest.mark.parametrize("change", ["score", "yank", "delete", "remove", "rename"])
def test_a_walk_goes_on_although_the_last_row_has_changed(sort: str | None, change: str) -> None:
    rows = [
        Row(name, None, rank, "LORA", None, ("q",), 10 * rank, {}, [("acc", None, rank / 10)], None, "kept")
        for name, rank in (("a", 6), ("b", 5), ("c", 4), ("d", 3))
    ]
    catalog = filled(rows)
    whole = found(catalog, VersionQuery(sort=sort))
    query = VersionQuery(sort=sort, limit=2)
    page = catalog.search(query)
    with catalog.writing() as writer:
        version = writer.resolve(Reference.parse(page[-1].reference))
        if change == "score":
            writer.add_evaluations(version, [Evaluation("acc", 0.01)])
        elif change == "yank":
            writer.yank(version, "because")
        elif change == "delete":
            writer.delete(version, "because")
        elif change == "rename":
            writer.rename_adapter(version.adapter, AdapterName.parse("z"))
        else:
            writer.remove_adapter(version.adapter, "because")
    assert found(catalog, query.behind(page[-1]))[:2] == whole[2:]


@pytest.mark.parametrize("after", ["local/nobody", "local/a@7", "sha256:" + "0" * 64])
def test_behind_what_is_not_there_is_nothing(after: str) -> None:
    catalog = filled([Row("a", None, 8, "LORA", None, ("q",), 10, {}, [], None, "kept")])
    with pytest.raises(NotFoundError):
        catalog.search(VersionQuery(after=Position(after)))


def test_a_page_of_a_metric_begins_behind_a_row_that_has_it() -> None:
    catalog = filled([Row("a", None, 8, "LORA", None, ("q",), 10, {}, [("acc", None, 0.5)], None, "kept")])
    with pytest.raises(NotFoundError):
        catalog.search(VersionQuery(sort="wer", after=Position("local/a@1")))


def test_the_best_comes_first_by_the_direction_that_is_stated_or_usual(memory: SqlCatalog) -> None:
    with memory.writing() as writer:
        for salt, (name, value) in enumerate([("one", 0.5), ("two", 0.9), ("three", 0.1)]):
            version, _ = writer.add_version(AdapterName.parse(name), manifest(salt))
            scores = [Evaluation(metric, value) for metric in ("acc", "wer", "odd")]
            writer.add_evaluations(version, [*scores, Evaluation("rank", value, higher_is_better=False)])

    def names(**options: Any) -> list[str]:
        return [str(version.adapter.name) for version in memory.search(VersionQuery(**options))]

    assert names(sort="acc") == names(sort="odd") == ["two", "one", "three"]
    assert names(sort="wer") == names(sort="odd", reverse=True) == ["three", "one", "two"]


def test_the_score_beside_a_version_is_the_one_that_was_asked_for(memory: SqlCatalog) -> None:
    with memory.writing() as writer:
        version, _ = writer.add_version(AdapterName.parse("a"), manifest())
        writer.add_evaluations(version, [Evaluation("acc", 0.5, "arc"), Evaluation("acc", 0.75, "boolq"), Evaluation("f1", 1.0)])

    def score(**options: Any) -> tuple[str, str | None, float]:
        (version,) = memory.search(VersionQuery(**options))
        assert version.score is not None
        return (version.score.metric, version.score.task, version.score.value)

    assert score(sort="arc/acc") == ("acc", "arc", 0.5)
    assert score(sort="acc") == ("acc", "boolq", 0.75)
    assert score(metrics=(MetricCondition.parse("arc/acc>0"),)) == ("acc", "arc", 0.5)


@pytest.mark.parametrize("text", ["%", "_", "'", '"', "\\", "; DROP TABLE version", "é", "ＯＮ"])
def test_what_looks_like_sql_is_text(memory: SqlCatalog, text: str) -> None:
    with memory.writing() as writer:
        version, _ = writer.add_version(AdapterName.parse("one"), manifest())
        writer.set_tags(version, {"k": "100%"})
    for options in ({"text": text}, {"base": text}, {"targets": (text,)}, {"tags": ((text, text),)}, {"tags": (("k", text),)}):
        assert memory.search(VersionQuery(**options)) == []
    assert len(memory.search(VersionQuery(text="on", tags=(("k", "100%"),)))) == 1


def test_half_a_character_is_refused_and_not_kept(memory: SqlCatalog) -> None:
    """As an argument that is not UTF-8 arrives from the operating system."""
    with pytest.raises(InvalidInputError) as caught:
        memory.search(VersionQuery(text="\udcff"))
    assert caught.value.code == "not-text"
    with pytest.raises(InvalidInputError), memory.writing() as writer:
        writer.add_version(AdapterName.parse("one"), manifest(), note="\udcff")
    assert memory.audit() == []
