"""What the Hub says is wrong reaches whoever asked."""

from __future__ import annotations

import json

from tests.conftest import WriteAdapter
from tests.hub.conftest import Command
from tests.hub.peer_server import PeerServer

COMPLAINTS = ['"license" must be one of [apache-2.0, mit]', '"base_model" with value "a b" is not valid']


def test_a_card_that_the_hub_refuses_is_refused_in_its_words_and_not_sent_again(
    command: Command, server: PeerServer, write_adapter: WriteAdapter
) -> None:
    """As the Hub's validate-yaml answers a licence that it does not know; see ``_validate_yaml`` of huggingface_hub's hf_api.py."""
    answer = json.dumps({"errors": [{"message": each} for each in COMPLAINTS], "warnings": []}).encode()
    server.refuse = lambda _method, path: (400, answer) if path == "/api/validate-yaml" else None
    refused = command("push", write_adapter("mine"), "--to", "hf://acme/support", "--base", "org/base")
    assert (refused.code, refused.error["code"]) == (3, "hub-refused")
    assert refused.error["message"].startswith("the Hub refuses what was asked of hf://acme/support: Invalid metadata in README.md")
    assert "\n" not in refused.error["message"]
    assert all(each in refused.error["message"] for each in COMPLAINTS)
    assert "README.md" in refused.error["hint"]
    assert [one.path for one in server.asked].count("/api/validate-yaml") == 1
    assert server.repositories["acme/support"].titles == ["initial commit"]


def test_a_long_complaint_is_cut(command: Command, server: PeerServer, write_adapter: WriteAdapter) -> None:
    answer = json.dumps({"errors": [{"message": "x" * 100_000}]}).encode()
    server.refuse = lambda _method, path: (400, answer) if path == "/api/validate-yaml" else None
    refused = command("push", write_adapter("mine"), "--to", "hf://acme/support", "--base", "org/base")
    assert refused.code == 3
    assert len(refused.error["message"]) < 1500
