"""Requests and their answers, as OpenAPI shows them: ``python -m tests.api.examples`` asks a real server and writes them.

It writes ``registry/api/examples.json`` and ``tests/api/openapi.json``; tests compare both with what the server says today.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from registry.api import description
from registry.api.app import create_app
from registry.api.settings import Settings
from registry.connect import connect
from registry.domain.access import Action, NamespacePattern, new_token
from registry.operations.evaluate import measured
from tests.conftest import CONFIG, floats, lora_tensors, safetensors_bytes

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "registry" / "api" / "examples.json"
OPENAPI = ROOT / "tests" / "api" / "openapi.json"
COMMAND = "python -m tests.api.examples"

BASE = "openai-community/gpt2"
X = "/v1/adapters/team/support-de"
SHAPE = "/v1/adapters/{ns}/{name}"
#: What differs from run to run, and what stands in its place.
_TIMES = frozenset(["at", "created_at", "expires_at", "revoked_at"])
_CONSTANT = {"text": "adr_0123456789_" + "x" * 43 + "_000000", "id": "0123456789", "hash": "0" * 64, "previous": "0" * 64}


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    shape: str = ""
    body: Any = None
    query: str = ""

    @property
    def key(self) -> str:
        return f"{self.method} {self.shape or self.path}"


def adapter(directory: Path, value: float) -> Path:
    directory.mkdir()
    (directory / "adapter_config.json").write_text(json.dumps(CONFIG))
    (directory / "adapter_model.safetensors").write_bytes(safetensors_bytes(lora_tensors(value=value)))
    return directory


def base(directory: Path) -> Path:
    directory.mkdir()
    tensors = {"model.layers.0.self_attn.q_proj.weight": ("F32", (3, 3), floats(0.5, count=9))}
    (directory / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    (directory / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    return directory


def scene(folder: Path) -> TestClient:
    """A store with an adapter of two versions, an alias, tags and scores, a base, and an administrator who asks."""
    registry = connect(folder / "registry", namespace="team", actor="trainer")
    registry.add_base(base(folder / "base"), name=BASE)
    registry.push(adapter(folder / "one", 0.5), name="support-de", alias="production", tags={"purpose": "support"})
    two = registry.push(adapter(folder / "two", 0.25), name="support-de", parents=["support-de@1"])
    for number, value in ((1, 0.71), (2, 0.74)):
        registry.add_evaluations(f"support-de@{number}", measured(f"acc={value}", task="arc_easy", stderr=0.01, n=2376))
    text, kept = new_token("admin", [Action.ADMIN], [NamespacePattern("*")], expires_at=None)
    with registry.catalog.writing() as writer:
        writer.add_token(kept)
    assert two.created
    headers = {"Authorization": f"Bearer {text}"}
    return TestClient(create_app(Settings(folder / "registry")), base_url="http://localhost:8000", headers=headers)


def asked(client: TestClient) -> Iterator[Asked]:
    """In order: what moves comes after what is looked at."""
    files = client.get("/v1/resolve/team/support-de?version=2").json()["files"]
    digest = files[0]["digest"]
    of = {"digest": "{digest}", "version": SHAPE + "/versions/{number}"}
    yield Asked("GET", "/healthz")
    yield Asked("GET", "/readyz")
    yield Asked("GET", "/v1/resolve/team/support-de", "/v1/resolve/{ns}/{name}", query="?alias=production")
    yield Asked("POST", "/v1/resolve", body={"names": ["team/support-de:production", "team/unknown"]})
    yield Asked("GET", "/v1/best", query=f"?by=arc_easy/acc&base={BASE}&engine=vllm")
    yield Asked("GET", "/v1/compare", query="?ref=team/support-de@1&ref=team/support-de@2")
    yield Asked("POST", "/v1/check", body={"reference": "team/support-de:production", "base": BASE, "engine": "vllm"})
    yield Asked("GET", "/v1/adapters", query="?metric=arc_easy/acc>=0.7&limit=1")
    yield Asked("GET", X, SHAPE)
    yield Asked("GET", f"{X}/versions", SHAPE + "/versions", query="?limit=1")
    yield Asked("GET", f"{X}/versions/2", of["version"])
    yield Asked("GET", f"{X}/versions/2/evaluations", of["version"] + "/evaluations")
    yield Asked("GET", f"{X}/versions/2/lineage", of["version"] + "/lineage")
    yield Asked("GET", f"{X}/aliases", SHAPE + "/aliases")
    yield Asked("GET", f"{X}/aliases/production", SHAPE + "/aliases/{alias}")
    yield Asked("GET", f"{X}/aliases/production/history", SHAPE + "/aliases/{alias}/history")
    yield Asked("GET", "/v1/bases")
    yield Asked("GET", f"/v1/bases/{BASE}", "/v1/bases/{owner}/{base}")
    yield Asked("GET", "/v1/events", query="?limit=2")
    yield Asked("GET", "/v1/audit", query="?limit=1")
    yield Asked("GET", "/v1/whoami")
    yield Asked("GET", "/v1/tokens")
    yield Asked("POST", "/v1/blobs/missing", body={"digests": [digest, "sha256:" + "0" * 64]})
    yield Asked("GET", f"/v1/uploads/{digest}", "/v1/uploads/{digest}")
    yield Asked("GET", "/v1/store/blobs")
    yield Asked("POST", "/v1/catalog/aliases", "/v1/catalog/{question}", {"adapter": "team/support-de"})
    yield Asked("POST", "/v1/store/doctor", body={"deep": True})
    yield Asked("POST", "/v1/store/verify")
    yield Asked("POST", "/v1/store/gc", body={"grace": 86400, "dry_run": True})
    yield Asked("PUT", "/v1/adapters/team/support-fr", SHAPE, {"private": True})
    new = {
        "files": [{"path": file["path"], "digest": file["digest"]} for file in files],
        "aliases": ["candidate"],
        "evaluations": [{"metric": "acc", "value": 0.74, "task": "arc_easy"}],
    }
    yield Asked("POST", "/v1/adapters/team/support-fr/versions", SHAPE + "/versions", new)
    score = {"metric": "acc", "value": 0.66, "task": "hellaswag", "stderr": 0.005, "n": 10042}
    yield Asked("POST", f"{X}/versions/2/evaluations", of["version"] + "/evaluations", {"evaluations": [score]})
    promotion = {"version": 2, "minimum": ["arc_easy/acc>=0.7"], "no_regression": ["arc_easy/acc"]}
    yield Asked("POST", f"{X}/aliases/production/promote", SHAPE + "/aliases/{alias}/promote", promotion)
    yield Asked("PUT", f"{X}/aliases/production", SHAPE + "/aliases/{alias}", {"version": 1})
    yield Asked("PUT", f"{X}/versions/2/tags", of["version"] + "/tags", {"purpose": "support"})
    yield Asked("DELETE", f"{X}/versions/2/tags/purpose", of["version"] + "/tags/{key}")
    yield Asked("PUT", f"{X}/versions/2/yank", of["version"] + "/yank", {"reason": "trained on the test set"})
    yield Asked("DELETE", f"{X}/versions/2/yank", of["version"] + "/yank")
    yield Asked("PUT", "/v1/base-aliases/mirror", "/v1/base-aliases/{base}", {"canonical": BASE})
    yield Asked("GET", "/v1/bases/mirror", "/v1/bases/{base}")
    yield Asked("PUT", "/v1/base-aliases/my/mirror", "/v1/base-aliases/{owner}/{base}", {"canonical": BASE})
    yield Asked("POST", "/v1/transactions", body={"steps": [{"do": "aliases", "adapter": "team/support-de"}], "commit": False})
    yield Asked("POST", "/v1/tokens", body={"name": "ci", "actions": ["read", "push"], "namespaces": ["team/*"], "days": 30})
    yield Asked("DELETE", f"{X}/versions/2", of["version"], {"reason": "trained on the test set"})
    yield Asked("DELETE", "/v1/adapters/team/support-fr", SHAPE, {"reason": "made by mistake"})


def documents(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The examples, and the description of the API with the examples that are stored."""
    client, found = scene(folder), {}
    for each in asked(client):
        answer = client.request(each.method, each.path + each.query, json=each.body)
        assert answer.status_code in (200, 201, 204), (each, answer.text)
        example = {"request": each.body} if each.body is not None else {}
        found[each.key] = example | ({"answer": constant(answer.json())} if answer.content else {})
    return dict(sorted(found.items())), client.get("/v1/openapi.json").json()


def constant(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _constant(key, each) for key, each in value.items()}
    return [constant(each) for each in value] if isinstance(value, list) else value


def _constant(key: str, value: Any) -> Any:
    if key in _TIMES and value is not None:
        return "2026-01-01T00:00:00.000000Z"
    if key == "actor" and "(" in str(value):
        return "admin (0123456789)"
    if key == "answered":
        return "0" * 64
    if key == "facts" and isinstance(value, dict):
        return {name: each for name, each in constant(value).items() if name != "manifest"}
    return _CONSTANT[key] if key in _CONSTANT and isinstance(value, str) and _differs(key, value) else constant(value)


def _differs(key: str, value: str) -> bool:
    """``id`` is that of a base too."""
    return key != "id" or "/" not in value


def written(document: Any) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a").mkdir()
        if not EXAMPLES.exists():
            EXAMPLES.write_text("{}")
        EXAMPLES.write_text(written(documents(Path(folder) / "a")[0]), encoding="utf-8")
        (Path(folder) / "b").mkdir()
        OPENAPI.write_text(written(documents(Path(folder) / "b")[1]), encoding="utf-8")
    size = hashlib.sha256(OPENAPI.read_bytes()).hexdigest()[:12]
    print(f"{len(description.examples())} examples, the API as {size}")


if __name__ == "__main__":
    main()
