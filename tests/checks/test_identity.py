"""The base has to be the one that was trained on: by name where both have one."""

from __future__ import annotations

from dataclasses import replace

from registry.domain.base_model import BaseModelId
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
