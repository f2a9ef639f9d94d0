"""How adapters come and go in every catalog, and what none of them is called: see :mod:`tests.catalog.contract`."""

from __future__ import annotations

from typing import Any

import pytest

from registry.catalog.protocol import Catalog
from registry.domain.names import AdapterName, AliasName, Reference
from registry.errors import ConflictError, NotFoundError
from tests.catalog import contract
from tests.catalog.conftest import NAME
from tests.catalog.contract import PRODUCTION, add, at, move


class NamesContract:
    def test_an_adapter_may_be_there_before_its_first_version(self, catalog: Catalog) -> None:
        with catalog.writing() as writer:
            assert writer.create_adapter(NAME, private=True)
            assert not writer.create_adapter(NAME, private=False)
        known = catalog.find_adapter(NAME)
        assert known is not None
        assert known.private
        with pytest.raises(NotFoundError) as caught:
            catalog.resolve(Reference(NAME))
        assert caught.value.code == "unknown-version"
        assert [version.number for version in add(catalog, 0)] == [1]
        with catalog.writing() as writer:
            writer.set_private(NAME, private=False)
        assert [adapter.private for adapter in catalog.adapters(namespace="team")] == [False]
        assert catalog.adapters(namespace="tea") == []

    def test_a_removed_adapter_is_gone_and_its_numbers_are_not_used_again(self, catalog: Catalog) -> None:
        add(catalog, 0, 1)
        move(catalog, 1)
        with catalog.writing() as writer:
            writer.remove_adapter(NAME, "by mistake")
        assert catalog.find_adapter(NAME) is None
        assert catalog.has_namespace("team")
        assert not catalog.has_namespace("teams")
        with pytest.raises(NotFoundError) as caught:
            catalog.resolve(Reference(NAME))
        assert caught.value.code == "unknown-adapter"
        assert [version.number for version in add(catalog, 0)] == [3]
        assert catalog.aliases(NAME) == {}

    def test_a_renamed_adapter_keeps_its_versions(self, catalog: Catalog) -> None:
        add(catalog, 0, 1)
        move(catalog, 1)
        new = AdapterName.parse("Team/New")
        with catalog.writing() as writer:
            writer.rename_adapter(NAME, new)
        assert at(catalog, "team/new:production") == "Team/New@1"
        assert catalog.find_adapter(NAME) is None
        with catalog.writing() as writer, pytest.raises(ConflictError):
            writer.rename_adapter(new, NAME)

    @pytest.mark.parametrize("door", ["add_version", "create_adapter", "rename_adapter"])
    @pytest.mark.parametrize(
        "name", ["team/adapter.production", "TEAM/Adapter.PRODUCTION", "team/adapter.staging", "team/adapter.V7"]
    )
    def test_no_adapter_is_called_like_an_alias_or_a_version_of_another(self, catalog: Catalog, door: str, name: str) -> None:
        """Of one that is there, that was there, and that never was: clients pin them by that name."""
        add(catalog, 0)
        other = AdapterName.parse("team/other")
        add(catalog, 1, name=other)
        with catalog.writing() as writer:
            writer.move_alias(NAME, PRODUCTION, 1)
            writer.move_alias(NAME, AliasName("staging"), 1)
        with catalog.writing() as writer:
            writer.move_alias(NAME, AliasName("staging"), None)
        before = len(catalog.audit())
        wanted = AdapterName.parse(name)
        doors: dict[str, Any] = {
            "add_version": lambda writer: writer.add_version(wanted, contract.manifest(2)),
            "create_adapter": lambda writer: writer.create_adapter(wanted, private=False),
            "rename_adapter": lambda writer: writer.rename_adapter(other, wanted),
        }
        with pytest.raises(ConflictError) as caught, catalog.writing() as writer:
            doors[door](writer)
        assert (caught.value.code, bool(caught.value.hint)) == ("name-clash", True)
        assert catalog.find_adapter(wanted) is None
        assert len(catalog.audit()) == before

    def test_dots_in_names_are_free_otherwise(self, catalog: Catalog) -> None:
        add(catalog, 0)
        move(catalog, 1)
        for name in ("team/adapter.5-lora", "team/adapter.v", "team/adapter.v0", "team/adapter.production.x", "team/none.v3"):
            add(catalog, 0, name=AdapterName.parse(name))
        add(catalog, 1, name=AdapterName.parse("team/adapter.5-lora"))
        with catalog.writing() as writer:
            writer.move_alias(AdapterName.parse("team/adapter.5-lora"), PRODUCTION, 2)

    def test_no_alias_is_called_like_an_adapter(self, catalog: Catalog) -> None:
        add(catalog, 0, 1)
        taken = AdapterName.parse("team/adapter.Production")
        add(catalog, 0, name=taken)
        with pytest.raises(ConflictError) as caught:
            move(catalog, 1)
        assert caught.value.code == "name-clash"
        assert catalog.aliases(NAME) == {}
        with catalog.writing() as writer:
            writer.remove_adapter(taken, "in the way")
        move(catalog, 1)
        move(catalog, 2)
        with pytest.raises(ConflictError):
            add(catalog, 2, name=taken)

    def test_no_adapter_comes_to_have_a_version_called_like_an_adapter(self, catalog: Catalog) -> None:
        """Nor one that is renamed an alias."""
        add(catalog, 0, name=AdapterName.parse("team/adapter.v12"))
        add(catalog, 0, name=AdapterName.parse("team/target.production"))
        with pytest.raises(ConflictError) as caught:
            add(catalog, 0)
        assert caught.value.code == "name-clash"
        other = AdapterName.parse("team/other")
        add(catalog, 0, name=other)
        with catalog.writing() as writer:
            writer.move_alias(other, PRODUCTION, 1)
        for name in ("team/adapter", "team/target"):
            with pytest.raises(ConflictError), catalog.writing() as writer:
                writer.rename_adapter(other, AdapterName.parse(name))
        assert catalog.find_adapter(other) is not None
