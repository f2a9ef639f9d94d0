"""Runs the rows of the conformance list with whatever huggingface_hub is imported, and prints what became of each as JSON.

A row is a function of :class:`Here` that asserts; it is passed over where the client does not know a method yet.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import huggingface_hub
from huggingface_hub import HfApi

MODULES = ("rows_repositories", "rows_uploads", "rows_reading", "rows_downloads")
_COUNT = itertools.count(1)


class MissingMethodError(Exception):
    pass


class Here:
    """``adapters`` holds directories: ``a`` and ``b`` differ in their weights alone, ``large`` has 25 MB of them."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.endpoint: str = os.environ["HF_ENDPOINT"]
        self.tokens: dict[str, str] = facts["tokens"]
        self.adapters = Path(facts["adapters"])
        self.store = Path(facts["store"])
        self.work = Path(facts["work"])
        self.version = tuple(int(part) for part in huggingface_hub.__version__.split(".")[:2])

    def api(self, token: str | None = "writer") -> HfApi:
        return HfApi(endpoint=self.endpoint, token=self.tokens[token] if token else False)

    def need(self, *methods: str) -> None:
        for method in methods:
            if not hasattr(HfApi, method):
                raise MissingMethodError(method)

    def fresh(self) -> str:
        """The id of a repository that nobody used yet."""
        return f"team/x{next(_COUNT)}"

    def made(self, adapter: str = "a", **options: Any) -> str:
        """A repository with one version."""
        name = self.fresh()
        self.api().create_repo(name, **options)
        self.api().upload_folder(repo_id=name, folder_path=str(self.adapters / adapter))
        return name

    def cache(self) -> str:
        path = self.work / f"cache{next(_COUNT)}"
        path.mkdir(parents=True)
        return str(path)

    def requests(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.store / "requests.log").read_text().splitlines()]

    def asked(self, method: str, path: str, body: object = None, token: str | None = "writer") -> tuple[int, dict[str, str], bytes]:
        """One request without a client: status, headers in lower case, body."""
        import http.client
        from urllib.parse import urlsplit

        connection = http.client.HTTPConnection(urlsplit(self.endpoint).netloc, timeout=60)
        headers = {"Authorization": f"Bearer {self.tokens[token]}"} if token else {}
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        connection.request(method, path, data, {**headers, "Content-Type": "application/json"})
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        content = response.read()
        connection.close()
        return response.status, found, content

    def alias(self, name: str, alias: str, number: int) -> None:
        status, _, body = self.asked("PUT", f"/v1/adapters/{name}/aliases/{alias}", {"version": number})
        assert status == 200, body


class Failing:
    """``with failing("RevisionNotFoundError") as error:`` the class's name, or that of one it is made of."""

    def __init__(self, *names: str, status: int | None = None) -> None:
        self.names, self.status, self.text = names, status, ""
        self.response: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _where: object) -> bool:
        assert kind is not None, f"expected {self.names}"
        assert error is not None
        if not {each.__name__ for each in kind.__mro__} & set(self.names):
            return False
        self.text = str(error)
        self.response = getattr(error, "response", None)
        if self.status is not None:
            assert self.response is not None, self.text
            assert self.response.status_code == self.status, (self.response.status_code, self.text)
        return True


def rows() -> dict[str, Callable[[Here], None]]:
    found = {}
    for module in MODULES:
        members = vars(importlib.import_module(f"tests.hub_protocol.{module}"))
        found.update({name: row for name, row in members.items() if name.startswith("row_")})
    return dict(sorted(found.items()))


def main(facts: str) -> None:
    here = Here(json.loads(facts))
    outcomes = {}
    for name, row in rows().items():
        try:
            row(here)
            outcomes[name] = "ok"
        except MissingMethodError as missing:
            outcomes[name] = f"not in this client: {missing}"
        except Exception:  # noqa: BLE001 - reported, each by itself
            outcomes[name] = traceback.format_exc()
    print(json.dumps(outcomes))


if __name__ == "__main__":
    from tests.hub_protocol import probe  # the rows know its classes by this name

    probe.main(sys.argv[1])
