"""Rows about downloads, and about what is in the client's cache afterwards."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from huggingface_hub import file_download, hf_hub_download, snapshot_download

from tests.hub_protocol.probe import Failing, Here

WEIGHTS = "adapter_model.safetensors"


def options(here: Here, cache: str) -> dict[str, Any]:
    return {"cache_dir": cache, "token": here.tokens["writer"], "endpoint": here.endpoint}


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def two_versions(here: Here) -> str:
    name = here.made("a")
    here.api().upload_folder(repo_id=name, folder_path=str(here.adapters / "b"))
    here.alias(name, "production", 1)
    return name


def row_27_download(here: Here) -> None:
    name = two_versions(here)
    sha = here.api().model_info(name, revision="v1").sha
    wanted = {"main": "b", "v1": "a", "production": "a", "refs/heads/production": "a", "refs/tags/v2": "b", sha: "a", "1": "a"}
    for revision, adapter in wanted.items():
        cache = here.cache()
        for path in (WEIGHTS, "adapter_config.json"):
            found = Path(hf_hub_download(name, path, revision=revision, **options(here, cache)))
            data = (here.adapters / adapter / path).read_bytes()
            assert found.read_bytes() == data, revision
            expected = hashlib.sha256(data).hexdigest() if path == WEIGHTS else git_sha1(data)
            assert found.resolve().name == expected
    for suffixed, adapter in ((f"{name}.v1", "a"), (f"{name}.production", "a"), (f"{name}.v2", "b")):
        found = Path(hf_hub_download(suffixed, WEIGHTS, **options(here, here.cache())))
        assert found.read_bytes() == (here.adapters / adapter / WEIGHTS).read_bytes()


def row_28_pinned_download(here: Here) -> None:
    name, cache = here.made(), here.cache()
    sha = here.api().model_info(name).sha
    first = hf_hub_download(name, WEIGHTS, revision=sha, **options(here, cache))
    before = len(here.requests())
    assert hf_hub_download(name, WEIGHTS, revision=sha, **options(here, cache)) == first
    assert len(here.requests()) == before


def row_29_alias_moves_meanwhile(here: Here) -> None:
    """Between what is asked about a file and the file: the cache is not poisoned."""
    name, cache = two_versions(here), here.cache()
    original = file_download.get_hf_file_metadata

    def moving(*arguments: Any, **keywords: Any) -> Any:
        found = original(*arguments, **keywords)
        here.alias(name, "production", 2)
        return found

    file_download.get_hf_file_metadata = moving
    try:
        found = Path(hf_hub_download(name, WEIGHTS, revision="production", **options(here, cache)))
    finally:
        file_download.get_hf_file_metadata = original
    assert found.resolve().name == hashlib.sha256(found.read_bytes()).hexdigest()
    assert found.read_bytes() == (here.adapters / "a" / WEIGHTS).read_bytes()


def row_30_connection_breaks(here: Here) -> None:
    name, cache = here.made("large"), here.cache()
    before = len(here.requests())
    (here.store / "cut").write_text(f"{name}/resolve {12_000_000}")
    try:
        found = hf_hub_download(name, WEIGHTS, **options(here, cache))
    except Exception:  # noqa: BLE001 - clients before 1.17 go on at the next call
        found = hf_hub_download(name, WEIGHTS, **options(here, cache))
    assert Path(found).read_bytes() == (here.adapters / "large" / WEIGHTS).read_bytes()
    ranges = [each["range"] for each in here.requests()[before:] if each["range"]]
    assert ranges or here.version < (0, 22), "the rest was asked for from the beginning"


def row_31_ranges(here: Here) -> None:
    import http.client
    from urllib.parse import urlsplit

    name = here.made()
    sha = here.api().model_info(name).sha
    data = (here.adapters / "a" / WEIGHTS).read_bytes()
    size = len(data)
    connection = http.client.HTTPConnection(urlsplit(here.endpoint).netloc, timeout=30)

    def ask(method: str, wanted: str | None, **more: str) -> tuple[int, str | None, str | None, bytes]:
        headers = {"Authorization": f"Bearer {here.tokens['writer']}", **({"Range": wanted} if wanted else {}), **more}
        connection.request(method, f"/{name}/resolve/{sha}/{WEIGHTS}", headers=headers)
        response = connection.getresponse()
        return response.status, response.getheader("content-range"), response.getheader("content-length"), response.read()

    assert ask("GET", "bytes=0-9") == (206, f"bytes 0-9/{size}", "10", data[:10])
    assert ask("GET", "bytes=-5") == (206, f"bytes {size - 5}-{size - 1}/{size}", "5", data[-5:])
    assert ask("GET", f"bytes=5-{size * 2}") == (206, f"bytes 5-{size - 1}/{size}", str(size - 5), data[5:])
    assert ask("GET", f"bytes={size}-")[:2] == (416, f"bytes */{size}")
    assert ask("GET", "bytes=0-0,1-1")[:2] == (416, f"bytes */{size}")
    assert ask("GET", "bytes=0-9", **{"If-Range": '"another"'})[0] == 200
    assert ask("HEAD", None) == (200, None, str(size), b"")
    connection.close()


def row_32_missing_file(here: Here) -> None:
    name, cache = here.made(), here.cache()
    sha = here.api().model_info(name).sha
    with Failing("EntryNotFoundError"):
        hf_hub_download(name, "nothing.json", **options(here, cache))
    assert (Path(cache) / f"models--{name.replace('/', '--')}" / ".no_exist" / sha / "nothing.json").exists()


def row_33_missing_revision(here: Here) -> None:
    name = here.made()
    with Failing("RevisionNotFoundError"):
        hf_hub_download(name, WEIGHTS, revision="nope", **options(here, here.cache()))
    for missing in ("team/nothing", f"{name}.v2", f"{name}.production"):
        with Failing("RepositoryNotFoundError"):
            hf_hub_download(missing, WEIGHTS, **options(here, here.cache()))


def row_34_snapshot(here: Here) -> None:
    name, cache = two_versions(here), here.cache()
    found = Path(snapshot_download(name, **options(here, cache)))
    assert sorted(os.listdir(found)) == ["README.md", "adapter_config.json", WEIGHTS]
    assert (found / WEIGHTS).read_bytes() == (here.adapters / "b" / WEIGHTS).read_bytes()
    before = len(here.requests())
    assert Path(snapshot_download(name, **options(here, cache))) == found
    assert len(here.requests()) == before + 1
    some = Path(snapshot_download(name, revision="v1", allow_patterns=["*.json"], **options(here, here.cache())))
    assert os.listdir(some) == ["adapter_config.json"]
    local = here.work / f"local{before}"
    snapshot_download(name, revision="production", local_dir=str(local), **options(here, here.cache()))
    assert (local / WEIGHTS).read_bytes() == (here.adapters / "a" / WEIGHTS).read_bytes()


def row_44_engines(here: Here) -> None:
    """What vLLM, SGLang and LoRAX call, none of which knows revisions of adapters."""
    name = two_versions(here)
    pinned = f"{name}.production"
    api = here.api()
    vllm = Path(snapshot_download(pinned, **options(here, here.cache())))
    assert (vllm / WEIGHTS).read_bytes() == (here.adapters / "a" / WEIGHTS).read_bytes()
    assert WEIGHTS in api.list_repo_files(pinned)
    sglang = Path(snapshot_download(pinned, allow_patterns=["*.json"], **options(here, here.cache())))
    assert os.listdir(sglang) == ["adapter_config.json"]
    siblings = [each.rfilename for each in api.model_info(pinned).siblings]
    assert [each for each in siblings if each.endswith(".safetensors")] == [WEIGHTS]
    with Failing("EntryNotFoundError"):
        hf_hub_download(pinned, "config.json", **options(here, here.cache()))
    status, _, body = here.asked("GET", f"/v2/repos/{name}/version/1")
    assert status == 200
    assert b'"status":"completed"' in body


def row_49_lfs_is_not_fooled(here: Here) -> None:
    """Wrong bytes, a wrong size, an address that was changed, and a digest that is somebody else's secret."""
    name = here.made()
    data = b"\x00" * 2_000_000
    oid = hashlib.sha256(data).hexdigest()

    def address(size: int) -> str:
        import json

        wanted = {"operation": "upload", "transfers": ["basic"], "objects": [{"oid": oid, "size": size}], "hash_algo": "sha256"}
        status, _, body = here.asked("POST", f"/{name}.git/info/lfs/objects/batch", wanted)
        assert status == 200, body
        href: str = json.loads(body)["objects"][0]["actions"]["upload"]["href"]
        return href.removeprefix(here.endpoint)

    assert here.asked("PUT", address(len(data)), b"\x01" * len(data), token=None)[0] == 400
    assert here.asked("PUT", address(len(data)), data[:-1], token=None)[0] == 400
    changed = address(len(data))
    changed = changed[:-3] + ("AAA" if not changed.endswith("AAA") else "BBB")
    assert here.asked("PUT", changed, data, token=None)[0] == 401
    assert here.asked("POST", f"/{name}.git/info/lfs/objects/verify", {"oid": oid, "size": len(data)})[0] == 404
    body = b'{"key":"header","value":{"summary":"x"}}\n' + (
        b'{"key":"lfsFile","value":{"path":"w.safetensors","algo":"sha256","oid":"%s"}}\n' % oid.encode()
    )
    assert here.asked("POST", f"/api/models/{name}/commit/main", body)[0] == 400
    assert here.asked("PUT", address(len(data)), data, token=None)[0] == 200
    assert here.asked("POST", f"/{name}.git/info/lfs/objects/verify", {"oid": oid, "size": len(data) - 1})[0] == 404
    assert here.asked("POST", f"/{name}.git/info/lfs/objects/verify", {"oid": oid, "size": len(data)})[0] == 200
    here.api("other").create_repo("other/thief", exist_ok=True)
    stolen = here.asked("POST", "/api/models/other/thief/commit/main", body, token="other")
    assert stolen[0] == 400, stolen
    assert here.asked("POST", f"/api/models/{name}/commit/main", body)[0] == 200
