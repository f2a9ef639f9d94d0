"""Which base an adapter means: a repository under its present name, or None where nobody can know."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id
from hypothesis import example, given
from hypothesis import strategies as st

from registry.domain.finding import Severity
from registry.formats.base_model_text import canonical_name, is_repository, resolve_base

SHA = "7ae557604adf67be50417f59c2c2f167def9a775"
TABLE = tomllib.loads(files("registry.formats").joinpath("base_aliases.toml").read_text(encoding="utf-8"))

# raw: (id, rules)
KNOWN: dict[str, tuple[str, list[str]]] = {
    "Qwen/Qwen2.5-0.5B-Instruct": ("Qwen/Qwen2.5-0.5B-Instruct", []),
    "somebody/their_own.model-v1": ("somebody/their_own.model-v1", []),
    "gpt2": ("openai-community/gpt2", ["base-alias"]),
    "roberta-base": ("FacebookAI/roberta-base", ["base-alias"]),
    "bert-base-uncased": ("google-bert/bert-base-uncased", ["base-alias"]),
    "distilbert-base-uncased": ("distilbert/distilbert-base-uncased", ["base-alias"]),
    "t5-small": ("google-t5/t5-small", ["base-alias"]),
    "meta-llama/Meta-Llama-3.1-8B": ("meta-llama/Llama-3.1-8B", ["base-alias"]),
    "meta-llama/Meta-Llama-3-8B": ("meta-llama/Meta-Llama-3-8B", []),
    "THUDM/chatglm-6b": ("zai-org/chatglm-6b", ["base-alias"]),
    "unsloth/Qwen2.5-7B-Instruct": ("Qwen/Qwen2.5-7B-Instruct", ["base-alias"]),
    "unsloth/Qwen2.5-7B-Instruct-bnb-4bit": ("Qwen/Qwen2.5-7B-Instruct", ["base-alias"]),
    "unsloth/qwen2.5-3b-instruct-unsloth-bnb-4bit": ("Qwen/Qwen2.5-3B-Instruct", ["base-alias"]),
    "unsloth/meta-llama-3.1-8b-instruct-unsloth-bnb-4bit": ("meta-llama/Llama-3.1-8B-Instruct", ["base-alias"]),
    "unsloth/llama-3-8b-Instruct-bnb-4bit": ("meta-llama/Meta-Llama-3-8B-Instruct", ["base-alias"]),
    "unsloth/tinyllama-bnb-4bit": ("TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T", ["base-alias"]),
    "unsloth/gemma-2b-bnb-4bit": ("google/gemma-2b", ["base-alias"]),
    "QWEN/qwen2.5-7b-instruct": ("Qwen/Qwen2.5-7B-Instruct", ["base-alias"]),
    " gpt2\n": ("openai-community/gpt2", ["base-alias"]),
    "unsloth/nobody-knows-this-bnb-4bit": ("unsloth/nobody-knows-this-bnb-4bit", []),
    "TheBloke/Mistral-7B-Instruct-v0.2-GPTQ": ("TheBloke/Mistral-7B-Instruct-v0.2-GPTQ", []),
}


@pytest.mark.parametrize(("raw", "id", "rules"), [(raw, *found) for raw, found in KNOWN.items()], ids=KNOWN)
def test_a_repository_is_known_by_its_present_name(raw: str, id: str, rules: list[str]) -> None:
    base, findings = resolve_base(raw, None)
    assert (base.id, base.raw, base.revision) == (id, raw, None)
    assert [finding.rule for finding in findings] == rules
    assert all(finding.severity is Severity.INFO and id in finding.message for finding in findings)


# Their modules are not those of the original: Llama's q, k and v where Phi-3 has one fused projection.
@pytest.mark.parametrize("name", TABLE["unsloth"]["converted"])
@pytest.mark.parametrize("suffix", ["", *TABLE["unsloth"]["quantised_suffixes"]])
def test_a_conversion_stands_for_itself_and_never_for_the_original(name: str, suffix: str) -> None:
    assert canonical_name(f"unsloth/{name}{suffix}") == f"unsloth/{name}"
    assert canonical_name(f"microsoft/{name}") == f"microsoft/{name}"


def test_a_quantised_sibling_with_other_modules_is_not_the_original() -> None:
    assert canonical_name("unsloth/gpt-oss-20b") == "openai/gpt-oss-20b"
    assert canonical_name("unsloth/gpt-oss-20b-unsloth-bnb-4bit") == "unsloth/gpt-oss-20b-unsloth-bnb-4bit"


# raw: rule
UNKNOWN: dict[str | None, str] = {
    None: "base-unknown",
    "": "base-unknown",
    "  ": "base-unknown",
    "None": "base-unknown",
    "null": "base-unknown",
    "your-base-model": "base-unknown",
    "path/to/base_model": "base-unknown",
    "<base-model>": "base-unknown",
    "[More Information Needed]": "base-unknown",
    "{{ base_model }}": "base-unknown",
    "$MODEL": "base-unknown",
    "https://huggingface.co/Qwen/Qwen2.5-0.5B": "base-is-url",
    "http://localhost/model": "base-is-url",
    "file:/models/x": "base-is-url",
    "s3://bucket/model": "base-is-url",
    "/root/autodl-tmp/models/glm-4-9b-chat": "base-is-local-path",
    "./glm_models": "base-is-local-path",
    "../base": "base-is-local-path",
    ".": "base-is-local-path",
    "~/models/base": "base-is-local-path",
    "C:\\models\\base": "base-is-local-path",
    "D:/models/base": "base-is-local-path",
    "models\\base": "base-is-local-path",
    "\\\\server\\share": "base-is-local-path",
    "a/b/c": "base-is-local-path",
    "output/": "base-is-local-path",
    "out/checkpoint-500": "base-is-local-path",
    "/kaggle/input/models/metric/base/transformers/default/1": "base-is-local-path",
    "/root/.cache/modelscope/hub/models/Qwen/Qwen2___5-7B": "base-is-local-path",
    f"/hub/models--org--name/snapshots/{SHA}/sub": "base-is-local-path",
    "/hub/models--org--name/snapshots/main": "base-is-local-path",
    "/hub/models--org--name": "base-is-local-path",
    "my base model": "base-not-a-repository",
    "org/n\u0430me": "base-not-a-repository",  # the Cyrillic letter
    "org/name\n--x": "base-not-a-repository",
    "-org/name": "base-not-a-repository",
    "org/na--me": "base-not-a-repository",
    "org/name.git": "base-not-a-repository",
    "x" * 97: "base-not-a-repository",
    "org/\x1b[31mname": "base-not-a-repository",
}


@pytest.mark.parametrize(("raw", "rule"), UNKNOWN.items(), ids=range(len(UNKNOWN)))
def test_where_nobody_can_know_the_text_is_kept_and_said(raw: str | None, rule: str) -> None:
    base, (finding,) = resolve_base(raw, "main")
    assert (base.id, base.raw, base.revision) == (None, raw, "main")
    assert (finding.rule, finding.severity, finding.where) == (rule, Severity.WARNING, "base_model_name_or_path")
    assert finding.fix
    assert len(finding.message) < 300
    assert finding.message.isprintable()


@pytest.mark.parametrize(
    ("path", "id"),
    [
        (f"/root/.cache/huggingface/hub/models--Qwen--Qwen2.5-0.5B/snapshots/{SHA}", "Qwen/Qwen2.5-0.5B"),
        (f"~/hub/models--google--gemma-2b-it/snapshots/{SHA}/", "google/gemma-2b-it"),
        (f"C:\\cache\\models--org--a.b_c\\snapshots\\{SHA}", "org/a.b_c"),
        (f"models--gpt2/snapshots/{SHA}", "openai-community/gpt2"),
        (f"/hub/models--unsloth--Qwen3-8B-bnb-4bit/snapshots/{SHA}", "Qwen/Qwen3-8B"),
    ],
)
def test_a_snapshot_in_the_hubs_cache_gives_repository_and_commit(path: str, id: str) -> None:
    base, findings = resolve_base(path, "main")
    assert (base.id, base.revision, base.raw) == (id, SHA, path)
    assert "base-alias" in [finding.rule for finding in findings]


def test_a_commit_of_a_copy_is_kept_and_said() -> None:
    base, findings = resolve_base("unsloth/Qwen3-8B", SHA)
    assert (base.id, base.revision) == ("Qwen/Qwen3-8B", SHA)
    assert [finding.rule for finding in findings] == ["base-alias", "base-revision-of-copy"]
    assert [finding.rule for finding in resolve_base("gpt2", SHA)[1]] == ["base-alias"]


@pytest.mark.parametrize("revision", ["main", "v1.0", "unsloth", SHA[:12], SHA.upper(), ""])
def test_a_revision_that_can_move_is_kept_and_said(revision: str) -> None:
    base, findings = resolve_base("Qwen/Qwen3-8B", revision)
    assert base.revision == revision
    assert [finding.rule for finding in findings] == ["base-revision-not-pinned"]
    assert resolve_base("Qwen/Qwen3-8B", SHA)[1] == ()
    assert resolve_base("Qwen/Qwen3-8B", None)[1] == ()


def _names() -> list[str]:
    unsloth = TABLE["unsloth"]
    listed = [name for names in TABLE["ownerless"].values() for name in names]
    listed += [f"unsloth/{name}" for names in unsloth["copies"].values() for name in names]
    listed += [f"unsloth/{name}" for name in [*unsloth["renamed"], *unsloth["converted"]]]
    return listed + list(TABLE["moved"])


def test_no_name_of_the_table_is_listed_twice() -> None:
    names = [name.lower() for name in _names()]
    assert len(names) == len(set(names)) > 300


@pytest.mark.parametrize("section", [TABLE["ownerless"], TABLE["unsloth"]["copies"]])
def test_the_table_is_sorted(section: dict[str, list[str]]) -> None:
    assert list(section) == sorted(section, key=lambda owner: (owner.lower(), owner))
    for names in section.values():
        assert names == sorted(names, key=lambda name: (name.lower(), name))


def test_every_name_of_the_table_resolves_in_any_case_to_a_name_that_resolves_to_itself() -> None:
    for name in _names():
        present = canonical_name(name)
        assert canonical_name(name.upper()) == canonical_name(name.lower()) == present
        assert canonical_name(present) == present
        assert is_repository(name)
        assert is_repository(present)
        assert "/" in present


@given(st.text("ab-_./9Zé\n ", max_size=12) | st.text(max_size=12))
@example("a" * 96 + "/" + "b" * 96)
@example("datasets/a/b")
@example("a.git")
@example("a_/_b")
def test_a_repository_is_what_huggingface_hub_takes_for_one(text: str) -> None:
    try:
        validate_repo_id(text)
    except HFValidationError:
        accepted = False
    else:
        accepted = True
    assert is_repository(text) is accepted


@given(st.none() | st.text() | st.text("models--snapshots/\\.~:abc0", max_size=80), st.none() | st.text(max_size=8))
@example("models--a/snapshots/" + SHA, None)
@example("models----/snapshots/" + SHA, None)
@example("models--a--b--c/snapshots/" + SHA, None)
def test_any_text_gives_an_answer_that_resolves_to_itself(raw: str | None, revision: str | None) -> None:
    base, findings = resolve_base(raw, revision)
    assert base.raw == raw
    if base.id is None:
        assert [finding.severity for finding in findings] == [Severity.WARNING]
    else:
        assert is_repository(base.id)
        assert resolve_base(base.id, None)[0].id == base.id
