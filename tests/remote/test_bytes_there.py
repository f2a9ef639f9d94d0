"""Bytes that the server has already need not be sent: what may be read of it may be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.api.settings import Settings
from registry.connect import connect
from registry.domain.access import Action, NamespacePattern, new_token
from registry.errors import RegistryError
from registry.operations import check
from tests.api.examples import base
from tests.api.served import served
from tests.conftest import WriteAdapter, lora_tensors


def test_what_a_deleted_version_left_is_pushed_again(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    shelf, source = connect(tmp_path / "store"), write_adapter("x")
    shelf.push(source)
    shelf.delete("x@1", "because")
    with served(Settings(tmp_path / "store")) as address:
        assert connect(address).push(source, name="y").version.reference == "local/y@1"


def test_a_base_that_is_known_is_added_by_another_administrator(tmp_path: Path) -> None:
    shelf, tokens = connect(tmp_path / "store"), []
    with shelf.catalog.writing() as writer:
        for name in ("one", "other"):
            text, token = new_token(name, [Action.ADMIN], [NamespacePattern("*")], expires_at=None)
            writer.add_token(token)
            tokens.append(text)
    folder = base(tmp_path / "base")
    with served(Settings(tmp_path / "store")) as address:
        added = [connect(address, token=token).add_base(folder, name="org/base") for token in tokens]
    assert [new for _, _, new in added] == [True, False]
    assert len(shelf.bases()) == 1


def test_a_refusal_does_not_say_where_the_server_keeps_things(
    tmp_path: Path, write_adapter: WriteAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a client did not look at, the server does."""
    connect(tmp_path / "store").add_base(base(tmp_path / "base"), name="org/base")
    source = write_adapter("x", lora_tensors("no.such.module"), base_model_name_or_path="org/base")
    monkeypatch.setattr(check, "against_base", lambda package, *_more: package)
    with served(Settings(tmp_path / "store")) as address, pytest.raises(RegistryError) as caught:
        connect(address).push(source)
    assert caught.value.code == "does-not-fit"
    assert str(tmp_path / "store") not in f"{caught.value}{caught.value.hint}{caught.value.findings}"
