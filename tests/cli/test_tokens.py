"""``adapters token``: who may be let in first."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Adapters


@pytest.mark.parametrize("options", [[], ["--role", "writer"], ["--role", "owner"], ["--action", "read", "--action", "push"]])
def test_the_first_token_is_an_administrator_s(adapters: Adapters, options: list[str]) -> None:
    refusal = adapters.refusal("token", "create", "ci", *options)
    assert (refusal["code"], refusal["exit_code"]) == ("no-administrator", 5)
    assert "adapters serve --init" in refusal["hint"]
    assert adapters.json("token", "list") == []
    assert not adapters.registry.exists()
    adapters.json("token", "create", "me", "--role", "admin")
    assert adapters.json("token", "create", "ci", *options)["name"] == "ci"


def test_an_administrator_whose_token_ended_is_none(adapters: Adapters) -> None:
    made = adapters.json("token", "create", "me", "--role", "admin")
    adapters.json("token", "revoke", made["id"])
    assert adapters.refusal("token", "create", "ci")["code"] == "no-administrator"
    adapters.json("token", "create", "you", "--action", "admin")
    assert adapters("token", "create", "ci").code == 0
