"""A directory is described without being changed, followed out of, waited for or believed."""

from __future__ import annotations

import json
import os
import stat
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from registry.connect import Registry
from registry.domain.finding import Severity
from registry.errors import InvalidInputError, RegistryError, UnsuitableDirectoryError
from registry.operations import describe as module
from registry.operations import directory as reading
from registry.operations.describe import AdapterPackage, describe
from tests.conftest import CONFIG, WriteAdapter, floats, lora_tensors, safetensors_bytes
from tests.operations.adapters import tree, write
from tests.operations.test_refusals import REFUSED, weights

SECRET = "root:x:0:0:do not tell"
ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def header(document: object, data: bytes = bytes(4)) -> Callable[[Path], object]:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return weights(struct.pack("<Q", len(text)) + text + data)


MALFORMED = {
    "shorter than a length": ("truncated-file", weights(b"\x01\x00")),
    "empty": ("truncated-file", weights(b"")),
    "no header": ("header-length", weights(bytes(8))),
    "a length beyond the file": ("truncated-file", weights(struct.pack("<Q", 1000) + b"{}")),
    "a length beyond reason": ("header-too-large", weights(struct.pack("<Q", 1 << 63) + b"{}")),
    "white space first": ("header-start", header(b' {"a":1}')),
    "no JSON": ("header-json", header(b"{]")),
    "a name twice": ("duplicate-tensor", header(b'{"a":%b,"a":%b}' % ((json.dumps(ENTRY).encode(),) * 2))),
    "a name that climbs": ("bad-tensor-name", header({"../a": ENTRY})),
    "an unknown dtype": ("bad-dtype", header({"a": {**ENTRY, "dtype": "F31"}})),
    "a negative size": ("bad-shape", header({"a": {**ENTRY, "shape": [-1]}})),
    "another size": ("size-mismatch", header({"a": {**ENTRY, "shape": [2]}})),
    "a hole": ("hole", header({"a": {**ENTRY, "data_offsets": [4, 8]}}, bytes(8))),
    "data behind the end": ("trailing-bytes", header({"a": ENTRY}, bytes(8))),
    "data cut off": ("truncated-file", header({"a": ENTRY}, bytes(3))),
    "an unknown field": ("unknown-field", header({"a": {**ENTRY, "code": "x"}})),
    "GGUF": ("not-safetensors", weights(b"GGUF" + bytes(60))),
    "a web page": ("not-safetensors", weights(b"<!DOCTYPE html><html></html>")),
}


def refusal(directory: Path, **options: Any) -> InvalidInputError:
    before = tree(directory)
    with pytest.raises(InvalidInputError) as caught:
        describe(directory, **options)
    assert tree(directory) == before
    assert "\n" not in caught.value.message
    assert SECRET not in f"{caught.value.message}{caught.value.hint}"
    return caught.value


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_header_is_named(name: str, tmp_path: Path) -> None:
    code, spoil = MALFORMED[name]
    directory = write(tmp_path / "my-lora")
    spoil(directory)
    assert refusal(directory).code == code


def test_every_refusal_leaves_a_store_as_it_was(store: Registry, tmp_path: Path) -> None:
    store.push(write(tmp_path / "good"), alias="production")
    before = tree(tmp_path / "registry")
    for position, name in enumerate({**REFUSED, **MALFORMED}):
        _, spoil = {**REFUSED, **MALFORMED}[name]
        directory = write(tmp_path / f"bad-{position}")
        spoil(directory)
        with pytest.raises(InvalidInputError):
            store.push(directory, name="good", alias="production", tags={"k": "v"}, evaluations=["acc=1"])
        assert tree(tmp_path / "registry") == before, name


def test_describing_changes_nothing(tmp_path: Path) -> None:
    directory = write(tmp_path / "my-lora")
    before = tree(directory)
    package = describe(directory)
    assert tree(directory) == before
    assert {path.name for path in package.paths.values()} == {"adapter_config.json", "adapter_model.safetensors"}


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "device"])
def test_what_is_no_file_is_refused_unopened(tmp_path: Path, name: str, kind: str) -> None:
    """A link's target is not read, a pipe is not waited for, a device is not touched."""
    (tmp_path / "secret").write_text(SECRET)
    directory = write(tmp_path / "my-lora")
    place = directory / name
    place.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "device" and os.geteuid() == 0:
        os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero: it never ends
    elif kind == "device":
        place.symlink_to("/dev/zero")
    else:
        place.symlink_to(tmp_path / "secret" if kind == "link" else "nowhere")
    assert refusal(directory).code in {"symlink", "not-a-file"}


def test_a_link_to_a_good_adapter_is_still_a_link(tmp_path: Path) -> None:
    good = write(tmp_path / "good")
    directory = write(tmp_path / "my-lora")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (directory / name).unlink()
        (directory / name).symlink_to(good / name)
    error = refusal(directory)
    assert error.code == "symlink"
    assert "cp -rL" in (error.hint or "")


@pytest.mark.parametrize("name", ["../good", "/etc", "", ".", "..", "a/b"])
def test_the_adapters_folder_is_below_the_directory(tmp_path: Path, name: str) -> None:
    write(tmp_path / "good")
    assert refusal(write(tmp_path / "my-lora"), adapter=name).code == "no-directory"


def test_the_adapters_folder_is_no_link(tmp_path: Path) -> None:
    directory = write(tmp_path / "my-lora")
    (directory / "other").symlink_to(write(tmp_path / "good"))
    assert refusal(directory, adapter="other").code == "symlink"


@pytest.mark.parametrize("kind", ["nothing", "a file", "a pipe"])
def test_no_directory_is_said(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "x"
    if kind == "a file":
        place.write_text("x")
    elif kind == "a pipe":
        os.mkfifo(place)
    with pytest.raises(UnsuitableDirectoryError) as caught:
        describe(place)
    assert (caught.value.code, bool(caught.value.hint)) == ("no-directory", True)


def meddled(monkeypatch: pytest.MonkeyPatch, meddle: Callable[[], object]) -> None:
    """Somebody changes the directory after it was looked at and before it is read."""
    look_at = module.look_at

    def looked(*arguments: Any) -> Any:
        found = look_at(*arguments)
        meddle()
        return found

    monkeypatch.setattr(module, "look_at", looked)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "notes.txt"])
def test_a_file_that_becomes_a_link_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    directory = write(tmp_path / "my-lora")
    (directory / "notes.txt").write_text("x")
    (tmp_path / "secret").write_text(SECRET)

    def swap() -> None:
        (directory / name).unlink()
        (directory / name).symlink_to(tmp_path / "secret")

    meddled(monkeypatch, swap)
    with pytest.raises(UnsuitableDirectoryError) as caught:
        describe(directory)
    assert SECRET not in caught.value.message


def test_what_is_described_is_what_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The config is read once: no second reading can meet another one."""
    directory = write(tmp_path / "my-lora")
    opened: list[str] = []
    open_regular = module.open_regular

    def counted(path: Path) -> Any:
        opened.append(path.name)
        return open_regular(path)

    monkeypatch.setattr(module, "open_regular", counted)
    monkeypatch.setattr(reading, "open_regular", counted)
    describe(directory)
    assert sorted(opened) == ["adapter_config.json", "adapter_model.safetensors"]


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "notes.txt"])
@pytest.mark.parametrize("change", [lambda data: data + b"x", lambda data: data[:-1], lambda _data: b""])
def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[bytes], bytes]
) -> None:
    directory = write(tmp_path / "my-lora")
    (directory / "notes.txt").write_text("text")
    place = directory / name
    meddled(monkeypatch, lambda: place.write_bytes(change(place.read_bytes())))
    with pytest.raises(InvalidInputError) as caught:
        describe(directory)
    assert caught.value.code in {"changed-while-read", "truncated-file"}


def test_a_reader_that_stops_early_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the pieces of a tensor were cut inside its elements, and a NaN could hide."""
    tensors = lora_tensors()
    name = next(iter(tensors))
    tensors[name] = ("F32", (2, 3), floats(1, 2, 3, 4, 5, float("nan")))
    directory = write(tmp_path / "my-lora", tensors)
    whole = describe(directory)

    class Stuttering(BytesIO):
        def read(self, count: int | None = -1, /) -> bytes:
            return super().read(count if count is None or count < 0 else min(count, 7))

    monkeypatch.setattr(module, "open_regular", lambda path: Stuttering(path.read_bytes()))
    again = describe(directory)
    assert again.manifest == whole.manifest
    assert [finding.rule for finding in again.findings] == ["nonfinite"]


def rules(package: AdapterPackage) -> dict[str, Severity]:
    return {finding.rule: finding.severity for finding in package.findings}


def test_size_zero_tensors_are_errors(tmp_path: Path) -> None:
    prefix = "base_model.model.q_proj"
    empty = {f"{prefix}.lora_A.weight": ("F32", (0, 3), b""), f"{prefix}.lora_B.weight": ("F32", (3, 0), b"")}
    assert Severity.ERROR in rules(describe(write(tmp_path / "my-lora", empty))).values()


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_one_bad_number_is_an_error_in_every_format(tmp_path: Path, dtype: str, bad: float) -> None:
    prefix = "base_model.model.q_proj"
    form = {"F64": "d", "F32": "f", "F16": "e"}.get(dtype)

    def data(*values: float) -> bytes:
        if form:
            return struct.pack(f"<{len(values)}{form}", *values)
        return b"".join(struct.pack("<f", value)[2:] for value in values)

    tensors = {
        f"{prefix}.lora_A.weight": (dtype, (2, 3), data(1, 2, 3, 4, 5, bad)),
        f"{prefix}.lora_B.weight": (dtype, (3, 2), data(1, 2, 3, 4, 5, 6)),
    }
    package = describe(write(tmp_path / "my-lora", tensors))
    assert rules(package) == {"nonfinite": Severity.ERROR}
    assert package.findings[0].where == f"{prefix}.lora_A.weight"


def test_some_zero_projections_are_named_and_all_of_them_a_no_op(tmp_path: Path) -> None:
    modules = ("layers.0.q_proj", "layers.1.q_proj")
    tensors = lora_tensors(*modules)
    ups = [name for name in tensors if "lora_B" in name]
    for count, name in enumerate(ups):
        tensors[name] = ("F32", (3, 2), bytes(24))
        (finding,) = describe(write(tmp_path / f"my-lora-{count}", tensors)).findings
        assert (finding.rule, finding.severity) == ("no-op", Severity.WARNING)
        assert ("changes nothing" in finding.message) == (count == len(ups) - 1)
    tensors[ups[0]] = tensors[ups[1]] = ("F32", (3, 2), floats(-1e-45, 0, 0, 0, 0, 0))
    assert describe(write(tmp_path / "my-lora", tensors)).findings == ()


LEFTOVERS = {
    "optimizer.pt": {}, "rng_state_0.pth": {}, "events.out.tfevents.1": {}, "pytorch_model.bin": {}, ".gitattributes": {},
    "scheduler.pt": {}, "training.log": {}, "training_args.bin": {"left-out": Severity.WARNING},
    "adapter_model.bin": {"left-out": Severity.WARNING}, "mystery.xyz": {"left-out": Severity.INFO},
    "train.py": {"code-file": Severity.ERROR}, "setup.SH": {"code-file": Severity.ERROR},
    "kernel.so.1": {"code-file": Severity.ERROR},
}  # fmt: skip


@pytest.mark.parametrize("name", LEFTOVERS)
def test_what_trainers_leave_is_left_out_and_said_where_it_matters(tmp_path: Path, name: str) -> None:
    directory = write(tmp_path / "my-lora")
    (directory / name).write_bytes(b"cos\nsystem\n")
    package = describe(directory)
    assert rules(package) == LEFTOVERS[name]
    assert name not in {entry.path for entry in package.manifest.files}


def test_only_evaluation_results_are_taken_from_folders(tmp_path: Path) -> None:
    directory = write(tmp_path / "my-lora")
    for folder in (".eval_results", "checkpoint-5", "runs", "extra"):
        (directory / folder).mkdir()
        (directory / folder / "x.yaml").write_text("[]")
    package = describe(directory)
    kept = {entry.path for entry in package.manifest.files}
    assert kept == {"adapter_config.json", "adapter_model.safetensors", ".eval_results/x.yaml"}
    assert [finding.where for finding in package.findings] == ["extra"]


def test_the_manifest_is_a_function_of_content_alone(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one"), write(tmp_path / "elsewhere" / "other")
    os.utime(other / "adapter_config.json", (0, 0))
    (other / "adapter_config.json").chmod(0o600)
    assert describe(one).manifest == describe(other).manifest
    assert describe(one).manifest.canonical_bytes == describe(other).manifest.canonical_bytes


@pytest.mark.parametrize(
    ("base", "identity", "revision", "overridden"),
    [
        ("openai-community/gpt2", "openai-community/gpt2", None, False),
        ("openai-community/gpt2@main", "openai-community/gpt2", "main", False),
        ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B", None, True),
    ],
)
def test_a_stated_base_is_recorded_and_a_contradiction_said(
    tmp_path: Path, base: str, identity: str, revision: str | None, overridden: bool
) -> None:
    package = describe(write(tmp_path / "my-lora"), base=base)
    recorded = package.manifest.base_model
    assert (recorded.id, recorded.revision, recorded.raw) == (identity, revision, CONFIG["base_model_name_or_path"])
    assert ("base-overridden" in rules(package)) is overridden


@pytest.mark.parametrize("base", ["", "@main", "../gpt2", "/data/gpt2", "a b/c"])
def test_a_base_that_is_no_repository_is_refused(tmp_path: Path, base: str) -> None:
    with pytest.raises(RegistryError):
        describe(write(tmp_path / "my-lora"), base=base)


def test_progress_counts_every_byte_of_the_weights(write_adapter: WriteAdapter) -> None:
    directory = write_adapter("my-lora")
    counted: list[int] = []
    describe(directory, progress=counted.append)
    assert sum(counted) == (directory / "adapter_model.safetensors").stat().st_size


def test_metadata_does_not_change_the_identity_of_the_tensors(tmp_path: Path) -> None:
    one = write(tmp_path / "one")
    two = write(tmp_path / "two")
    (two / "adapter_model.safetensors").write_bytes(safetensors_bytes(lora_tensors(), {"format": "pt"}))
    first, second = describe(one).manifest, describe(two).manifest
    assert first.tensor_identity == second.tensor_identity
    assert first.digest != second.digest
