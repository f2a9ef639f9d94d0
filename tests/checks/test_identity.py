"""The base has to be the one that was trained on: by name where both have one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from registry.domain.base_model import BaseModelId
from registry.domain.digest import Digest
from tests.checks.bases import base, finding, noticed, subject
from tests.variants.adapters import pair

K = pair("model.layers.0.self_attn.k_proj")


def test_another_base_of_equal_shapes_is_an_error() -> None:
    one = subject(K, base(name="acme/other"))
    assert noticed(one) == ["base-id"]
    assert "acme/tiny" in finding(one, "base-id").message


def test_upper_and_lower_case_make_no_difference() -> None:
    assert noticed(subject(K, base(name="Acme/Tiny"))) == []


def test_a_directory_of_the_same_name_needs_no_proof() -> None:
    nameless = base(name=None)
    assert noticed(subject(K, nameless)) == []
    elsewhere = replace(nameless, id=BaseModelId(None, raw="/bases/other"))
    assert noticed(subject(K, elsewhere)) == ["base-unproven"]
    assert noticed(subject(K, nameless, trained_on=BaseModelId(None, raw="/home/me/model"))) == ["base-unproven"]


def test_a_recorded_fingerprint_is_that_of_the_base() -> None:
    same = BaseModelId("acme/tiny", fingerprint=base().fingerprint)
    assert noticed(subject(K, trained_on=same)) == []
    assert noticed(subject(K, trained_on=replace(same, fingerprint="sha256:" + "0" * 64))) == ["base-fingerprint"]


COMMIT, OTHER = "a" * 40, "b" * 40
ONE, TWO = (Digest.of(text) for text in (b"one", b"two"))


@pytest.mark.parametrize(
    ("trained", "asked", "weights", "said"),
    [
        (COMMIT, COMMIT, (None, None), []),
        (COMMIT, OTHER, (None, None), ["base-revision"]),
        (COMMIT, OTHER, (ONE, None), ["base-revision"]),
        (COMMIT, OTHER, (ONE, ONE), []),  # nothing but the card was changed
        (COMMIT, OTHER, (ONE, TWO), ["base-weights"]),
        (None, None, (ONE, TWO), ["base-weights"]),
        (COMMIT, COMMIT[:12], (None, None), []),
        ("main", OTHER, (None, None), []),  # a branch moves
        (None, OTHER, (None, None), []),
        (COMMIT, None, (None, None), []),
    ],
)
def test_another_revision_of_the_same_base(
    trained: str | None, asked: str | None, weights: tuple[Digest | None, Digest | None], said: list[str]
) -> None:
    plain = base()
    on = replace(plain, id=replace(plain.id, revision=asked), weights_fingerprint=weights[1])
    one = subject(K, on, trained_on=BaseModelId("acme/tiny", trained, raw="acme/tiny"))
    assert noticed(replace(one, trained_weights=weights[0])) == said


def test_a_copy_pins_a_commit_of_its_own() -> None:
    plain = base(name="meta-llama/Llama-3.1-8B")
    on = replace(plain, id=replace(plain.id, revision=OTHER))
    for raw, said in (("meta-llama/Llama-3.1-8B", ["base-revision"]), ("unsloth/Meta-Llama-3.1-8B-bnb-4bit", [])):
        assert noticed(subject(K, on, trained_on=BaseModelId("meta-llama/Llama-3.1-8B", COMMIT, raw=raw))) == said


def test_other_weights_under_another_name_are_said_once() -> None:
    one = subject(K, replace(base(name="acme/other"), weights_fingerprint=TWO))
    assert noticed(replace(one, trained_weights=ONE)) == ["base-id"]
