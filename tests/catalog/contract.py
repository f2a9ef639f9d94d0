"""What every catalog does. A backend's tests are a subclass with one fixture, ``catalog``, whose actor is ``actor``."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from registry.catalog.protocol import Catalog
from registry.domain.access import Action, NamespacePattern, Presented, new_token
from registry.domain.digest import Digest
from registry.domain.evaluation import Evaluation
from registry.domain.finding import Finding, Severity
from registry.domain.names import AdapterName, AliasName, Reference
from registry.domain.query import VersionQuery, Visible
from registry.domain.version import Version
from registry.errors import AliasMovedError, ConflictError, InvalidInputError, NotFoundError
from tests.catalog.conftest import NAME, manifest

PRODUCTION = AliasName("production")
UNKNOWN = AdapterName.parse("team/unknown")


def add(catalog: Catalog, *salts: int, name: AdapterName = NAME) -> list[Version]:
    with catalog.writing() as writer:
        return [writer.add_version(name, manifest(salt))[0] for salt in salts]


def change(catalog: Catalog, verb: str, number: int, *arguments: Any) -> None:
    with catalog.writing() as writer:
        getattr(writer, verb)(writer.resolve(Reference(NAME, number=number)), *arguments)


def move(catalog: Catalog, to: int | None, **options: Any) -> Any:
    with catalog.writing() as writer:
        return writer.move_alias(NAME, PRODUCTION, to, **options)


def at(catalog: Catalog, text: str) -> str:
    return catalog.resolve(Reference.parse(text)).reference


class CatalogContract:
    actor = "tester"

    def test_one_that_was_never_written_is_empty(self, catalog: Catalog) -> None:
        assert catalog.search(VersionQuery()) == []
        assert catalog.audit() == []
        assert list(catalog.references()) == list(catalog.live_versions()) == []
        assert catalog.find_version(NAME, manifest().digest) is None
        assert catalog.verify(lambda _digest: None) == []
        with pytest.raises(NotFoundError) as caught:
            catalog.resolve(Reference(NAME))
        assert caught.value.code == "unknown-adapter"

    def test_numbers_count_up_per_adapter(self, catalog: Catalog) -> None:
        assert [version.number for version in add(catalog, 0, 1, 2)] == [1, 2, 3]
        assert [version.number for version in add(catalog, 0, name=UNKNOWN)] == [1]

    def test_the_same_content_is_the_same_version_and_no_entry(self, catalog: Catalog) -> None:
        add(catalog, 0, 1)
        with catalog.writing() as writer:
            version, created = writer.add_version(NAME, manifest(0), note="again")
        assert (version.number, created, version.note) == (1, False, None)
        assert len(catalog.audit()) == 2

    def test_a_number_is_never_used_again(self, catalog: Catalog) -> None:
        add(catalog, 0, 1)
        change(catalog, "delete", 2, "because")
        assert [version.number for version in add(catalog, 1, 2)] == [3, 4]
        for number in (1, 3, 4):
            change(catalog, "delete", number, "because")
        assert [version.number for version in add(catalog, 0)] == [5]

    def test_names_are_compared_without_case_and_shown_as_first_written(self, catalog: Catalog) -> None:
        add(catalog, 0, name=AdapterName.parse("Team/Adapter"))
        assert [version.reference for version in add(catalog, 1, name=AdapterName.parse("TEAM/adapter"))] == ["Team/Adapter@2"]
        assert at(catalog, "team/ADAPTER") == "Team/Adapter@2"
        assert list(catalog.aliases(NAME)) == []

    def test_what_was_recorded_is_read(self, catalog: Catalog) -> None:
        finding = Finding("no-op", Severity.WARNING, "nothing", "x", None)
        with catalog.writing() as writer:
            written, created = writer.add_version(NAME, manifest(0), note="first", findings=[finding])
            writer.set_tags(written, {"b": "2", "a": "1"})
            writer.move_alias(NAME, PRODUCTION, 1)
        assert created
        version = catalog.resolve(Reference(NAME, number=1))
        assert (version.digest, version.note, version.findings) == (manifest(0).digest, "first", (finding,))
        assert (version.aliases, dict(version.tags), version.yanked) == (("production",), {"a": "1", "b": "2"}, None)
        assert version.summary.rank == 8
        assert version.summary.target_modules == ("q_proj",)

    def test_what_was_made_from_a_version_is_found(self, catalog: Catalog) -> None:
        parent, other = add(catalog, 0, 1)
        with catalog.writing() as writer:
            for salt, parents in enumerate([(parent, other, parent), (other,), (parent,)], 2):
                writer.add_version(UNKNOWN, manifest(salt, parents=[Digest(each.digest) for each in parents]))

        def children(of: Version) -> list[int]:
            query = VersionQuery(parent=Digest(of.digest), all_versions=True)
            return [version.number for version in catalog.search(query)]

        assert (children(parent), children(other)) == ([3, 1], [2, 1])
        with catalog.writing() as writer:
            writer.yank(writer.resolve(Reference(UNKNOWN, number=1)), "wrong")
            writer.delete(writer.resolve(Reference(UNKNOWN, number=3)), "because")
        assert (children(parent), children(other)) == ([1], [2, 1])

    def test_a_reference_means_a_version(self, catalog: Catalog) -> None:
        first, _ = add(catalog, 0, 1)
        move(catalog, 2)
        for text in ("team/adapter", "team/adapter@2", "team/adapter:production"):
            assert at(catalog, text) == "team/adapter@2"
        for digits in (12, 20, 64):
            assert at(catalog, first.digest[: 7 + digits]) == "team/adapter@1"

    def test_a_digest_nobody_has_is_not_found(self, catalog: Catalog) -> None:
        add(catalog, 0)
        for text in (Digest.of(b"nobody"), "sha256:" + "f" * 12, "sha256:" + "0" * 64):
            with pytest.raises(NotFoundError):
                at(catalog, text)

    def test_what_is_not_there_is_named_with_a_hint(self, catalog: Catalog) -> None:
        add(catalog, 0, 1)
        for text, code in {
            "team/unknown": "unknown-adapter",
            "team/adapter@3": "unknown-version",
            "team/adapter:staging": "unknown-alias",
            "other/adapter": "unknown-adapter",
        }.items():
            with pytest.raises(NotFoundError) as caught:
                at(catalog, text)
            assert (caught.value.code, bool(caught.value.hint)) == (code, True)

    def test_a_yanked_version_is_passed_over_and_still_found_exactly(self, catalog: Catalog) -> None:
        _, second = add(catalog, 0, 1)
        move(catalog, 2)
        change(catalog, "yank", 2, "broken")
        assert at(catalog, "team/adapter") == "team/adapter@1"
        assert [version.reference for version in catalog.search(VersionQuery())] == ["team/adapter@1"]
        for text in ("team/adapter@2", "team/adapter:production", second.digest):
            assert catalog.resolve(Reference.parse(text)).yanked == "broken"
        change(catalog, "unyank", 2)
        assert at(catalog, "team/adapter") == "team/adapter@2"

    def test_if_all_are_yanked_the_name_alone_means_none(self, catalog: Catalog) -> None:
        add(catalog, 0)
        change(catalog, "yank", 1, "broken")
        with pytest.raises(NotFoundError) as caught:
            at(catalog, "team/adapter")
        assert caught.value.code == "unknown-version"
        assert catalog.search(VersionQuery()) == []
        assert len(catalog.search(VersionQuery(all_versions=True))) == 1

    def test_a_deleted_version_is_gone_for_everybody(self, catalog: Catalog) -> None:
        first, _ = add(catalog, 0, 1)
        change(catalog, "delete", 1, "because")
        with pytest.raises(NotFoundError) as caught:
            at(catalog, "team/adapter@1")
        assert caught.value.code == "version-deleted"
        with pytest.raises(NotFoundError):
            at(catalog, first.digest)
        assert catalog.find_version(NAME, first.digest) is None
        assert [version.number for version in catalog.search(VersionQuery(all_versions=True))] == [2]
        assert [version.number for version in catalog.live_versions()] == [2]
        assert first.digest not in set(catalog.references())

    def test_nothing_is_done_to_what_was_deleted(self, catalog: Catalog) -> None:
        add(catalog, 0)
        change(catalog, "delete", 1, "because")
        for verb, arguments in {"yank": ["x"], "delete": ["x"], "set_tags": [{"a": "b"}], "unyank": []}.items():
            with pytest.raises(NotFoundError):
                change(catalog, verb, 1, *arguments)
        with pytest.raises(NotFoundError):
            move(catalog, 1)
        assert len(catalog.audit()) == 2

    def test_what_an_alias_points_at_is_not_deleted(self, catalog: Catalog) -> None:
        add(catalog, 0)
        move(catalog, 1)
        with pytest.raises(ConflictError) as caught:
            change(catalog, "delete", 1, "because")
        assert caught.value.code == "version-in-use"
        assert at(catalog, "team/adapter@1") == "team/adapter@1"
        move(catalog, None)
        change(catalog, "delete", 1, "because")

    def test_an_alias_moves_only_from_where_it_is_expected(self, catalog: Catalog) -> None:
        add(catalog, 0, 1)
        for actual, expected, to in product((None, 1, 2), repeat=3):
            if catalog.aliases(NAME).get("production") != actual:
                move(catalog, actual)
            before = len(catalog.audit())
            if expected != actual:
                with pytest.raises(AliasMovedError) as caught:
                    move(catalog, to, expected=expected)
                assert (caught.value.expected, caught.value.actual) == (expected, actual)
                to = actual
            else:
                assert (move(catalog, to, expected=expected) is None) == (to == actual)
            assert catalog.aliases(NAME) == ({} if to is None else {"production": to})
            assert len(catalog.audit()) == before + (to != actual)

    def test_every_move_of_an_alias_is_kept(self, catalog: Catalog) -> None:
        add(catalog, 0, 1)
        for to in (1, 2, 2, None, 1):
            move(catalog, to)
        moves = catalog.alias_history(NAME, PRODUCTION)
        assert [(each.before, each.after) for each in moves] == [(None, 1), (1, 2), (2, None), (None, 1)]
        assert {each.actor for each in moves} == {self.actor}
        assert [each.at for each in moves] == sorted(each.at for each in moves)
        assert catalog.alias_history(NAME, AliasName("PRODUCTION")) == moves

    def test_an_alias_points_at_a_version_that_is_there(self, catalog: Catalog) -> None:
        add(catalog, 0)
        with pytest.raises(NotFoundError):
            move(catalog, 2)
        with pytest.raises(NotFoundError):
            move(catalog, None)
        with pytest.raises(NotFoundError):
            catalog.alias_history(NAME, PRODUCTION)
        assert catalog.aliases(NAME) == {}

    def test_tags_are_set_changed_and_removed(self, catalog: Catalog) -> None:
        add(catalog, 0)
        change(catalog, "set_tags", 1, {"a": "1", "b": "2"})
        change(catalog, "set_tags", 1, {"a": "3", "b": "2"})
        change(catalog, "set_tags", 1, {"a": "3"})
        change(catalog, "remove_tags", 1, ["b"])
        assert dict(catalog.resolve(Reference(NAME)).tags) == {"a": "3"}
        assert [entry.action for entry in catalog.audit()] == ["untag", "tag", "tag", "publish"]
        with pytest.raises(NotFoundError) as caught:
            change(catalog, "remove_tags", 1, ["a", "b"])
        assert caught.value.code == "unknown-tag"
        assert dict(catalog.resolve(Reference(NAME)).tags) == {"a": "3"}

    def test_a_better_measurement_is_another_evaluation(self, catalog: Catalog) -> None:
        (version,) = add(catalog, 0)
        first, second = Evaluation("acc", 0.5, "arc"), Evaluation("acc", 0.75, "arc", at="2026-01-01T00:00:00Z")
        change(catalog, "add_evaluations", 1, [first])
        change(catalog, "add_evaluations", 1, [second, Evaluation("loss", 1.0)])
        values = [(each.metric, each.value) for each in catalog.evaluations(version)]
        assert values == [("acc", 0.5), ("acc", 0.75), ("loss", 1.0)]
        assert [bool(each.at) for each in catalog.evaluations(version)] == [True, True, True]
        (found,) = catalog.search(VersionQuery(sort="arc/acc"))
        assert found.score == second

    def test_the_same_results_file_adds_nothing(self, catalog: Catalog) -> None:
        (version,) = add(catalog, 0)
        raw = Digest.of(b"results")
        for expected in (2, 0):
            with catalog.writing() as writer:
                scores = [Evaluation("acc", 0.5), Evaluation("f1", 0.5)]
                assert writer.add_evaluations(version, scores, raw=raw) == expected
        assert len(catalog.evaluations(version)) == 2
        assert raw in set(catalog.references())
        assert catalog.owners(raw) == ["team/adapter@1"]

    def test_who_needs_a_blob_is_known(self, catalog: Catalog) -> None:
        first, _ = add(catalog, 0, 1)
        add(catalog, 0, name=UNKNOWN)
        assert catalog.owners(Digest.of(b"shared")) == ["team/adapter@1", "team/adapter@2", "team/unknown@1"]
        assert catalog.owners(first.digest) == ["team/adapter@1", "team/unknown@1"]
        assert catalog.owners(Digest.of(b"nobody")) == []
        with catalog.writing() as writer:
            assert writer.unreferenced([first.digest, Digest.of(b"nobody")]) == [Digest.of(b"nobody")]

    def test_an_exception_takes_everything_back(self, catalog: Catalog) -> None:
        add(catalog, 0)
        before = catalog.audit()
        with pytest.raises(RuntimeError), catalog.writing() as writer:
            version, _ = writer.add_version(NAME, manifest(1))
            writer.set_tags(version, {"a": "b"})
            writer.move_alias(NAME, PRODUCTION, 2)
            writer.yank(writer.resolve(Reference(NAME, number=1)), "because")
            raise RuntimeError("unplugged")
        assert catalog.audit() == before
        assert catalog.aliases(NAME) == {}
        assert at(catalog, "team/adapter") == "team/adapter@1"
        assert [version.number for version in add(catalog, 2)] == [2]

    def test_a_transaction_sees_its_own_changes(self, catalog: Catalog) -> None:
        with catalog.writing() as writer:
            writer.add_version(NAME, manifest(0))
            writer.move_alias(NAME, PRODUCTION, 1, expected=None)
            writer.move_alias(NAME, PRODUCTION, None, expected=1)
            assert writer.resolve(Reference(NAME)).aliases == ()
            version, created = writer.add_version(NAME, manifest(0))
        assert (version.number, created) == (1, False)

    def test_the_audit_is_numbered_newest_first_and_by_adapter(self, catalog: Catalog) -> None:
        add(catalog, 0, 1)
        add(catalog, 0, name=UNKNOWN)
        assert [entry.sequence for entry in catalog.audit()] == [3, 2, 1]
        assert [entry.sequence for entry in catalog.audit(limit=2)] == [3, 2]
        assert [entry.sequence for entry in catalog.audit(NAME)] == [2, 1]
        assert [entry.body["digest"] for entry in catalog.audit(UNKNOWN)] == [manifest(0).digest]
        with pytest.raises(NotFoundError):
            catalog.audit(AdapterName.parse("team/nobody"))

    @pytest.mark.parametrize("sort", ["created", "rank", "acc"])
    def test_a_page_goes_on_behind_an_adapter_that_has_another_name(self, catalog: Catalog, sort: str) -> None:
        for salt, name in enumerate(["team/a", "team/b", "team/c"]):
            (version,) = add(catalog, salt, name=AdapterName.parse(name))
            with catalog.writing() as writer:
                writer.add_evaluations(version, [Evaluation("acc", 0.5)])
        query = VersionQuery(sort=sort, limit=1)
        order, page = [each.reference for each in catalog.search(VersionQuery(sort=sort))], catalog.search(query)
        with catalog.writing() as writer:
            writer.rename_adapter(page[0].adapter, AdapterName.parse("team/other"))
        assert [page[0].reference, *(each.reference for each in catalog.search(query.behind(page[0])))] == order[:2]

    def test_only_what_may_be_seen_is_found(self, catalog: Catalog) -> None:
        hidden = AdapterName.parse("team/hidden")
        with catalog.writing() as writer:
            writer.create_adapter(hidden, private=True)
        add(catalog, 0)
        add(catalog, 1, name=hidden)
        add(catalog, 2, name=AdapterName.parse("other/one"))

        def seen(*patterns: str, public: bool = False) -> list[str]:
            found = catalog.search(VersionQuery(visible=Visible(patterns, public)))
            return [str(version.adapter) for version in found]

        assert seen() == []
        assert seen(public=True) == ["other/one", "team/adapter"]
        assert seen("team/*") == ["team/adapter", "team/hidden"]
        assert seen("team/hid*") == ["team/hidden"]
        assert seen("team/hid") == []
        assert seen("*") == ["other/one", "team/adapter", "team/hidden"]

    def test_a_commit_keeps_its_blobs(self, catalog: Catalog) -> None:
        tree, card = Digest.of(b"tree"), Digest.of(b"card")
        with catalog.writing() as writer:
            writer.create_adapter(NAME, private=False)
            writer.add_commit(
                NAME, commit="a" * 40, parent=None, tree=tree, files=[card], title="card", number=0, draft=False
            )
        (commit,) = catalog.commits(NAME)
        assert (commit.id, commit.tree, commit.author) == ("a" * 40, tree, "tester")
        assert {tree, card} <= set(catalog.references())
        assert catalog.holders(card) == [NAME]
        with catalog.writing() as writer:
            assert writer.unreferenced([card, Digest.of(b"other")]) == [Digest.of(b"other")]
            writer.remove_adapter(NAME, "by mistake")
        assert catalog.commits(NAME) == []
        assert not {tree, card} & set(catalog.references())

    def test_an_administrator_of_a_part_is_none(self, catalog: Catalog) -> None:
        _, kept = new_token("ci", [Action.ADMIN], [NamespacePattern("team/*")], expires_at=None)
        with pytest.raises(InvalidInputError) as caught, catalog.writing() as writer:
            writer.add_token(kept)
        assert caught.value.code == "admin-everywhere"
        assert catalog.tokens() == []

    def test_a_token_is_kept_without_its_secret_and_can_be_revoked(self, catalog: Catalog) -> None:
        text, kept = new_token("ci", [Action.PUSH], [NamespacePattern("team/*")], expires_at="2030-01-01T00:00:00Z")
        with catalog.writing() as writer:
            writer.add_token(kept)
        presented = Presented.parse(text)
        assert presented is not None
        token = catalog.find_token(presented.id)
        assert presented.is_of(token)
        assert token is not None
        assert text not in repr(catalog.audit())
        assert token.is_live("2026-01-01T00:00:00Z")
        with catalog.writing() as writer:
            writer.revoke_token(token.id)
        assert [each.is_live("2026-01-01T00:00:00Z") for each in catalog.tokens()] == [False]

    def test_events_are_read_forwards(self, catalog: Catalog) -> None:
        add(catalog, 0, 1)
        move(catalog, 1)
        assert [(entry.sequence, entry.action) for entry in catalog.events(1, limit=10)] == [(2, "publish"), (3, "alias")]
        assert [entry.sequence for entry in catalog.events(0, limit=1)] == [1]

    def test_whatever_happened_the_history_explains_the_tables(self, catalog: Catalog) -> None:
        add(catalog, 0, 1, 2)
        move(catalog, 1)
        move(catalog, 2)
        change(catalog, "set_tags", 1, {"a": "1"})
        change(catalog, "yank", 3, "broken")
        change(catalog, "add_evaluations", 1, [Evaluation("acc", 0.5)])
        change(catalog, "delete", 1, "because")
        kept = {manifest(salt).digest: manifest(salt) for salt in (1, 2)}  # the deleted one's was collected
        assert catalog.verify(kept.get) == []
