"""The wild corpus, where one is at hand: ``ADAPTERS_CORPUS`` names it, or it lies beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.journeys.corpus import answers

BESIDE = Path(__file__).parents[3] / "shared" / "corpus"


def test_every_file_of_the_corpus_gets_the_answer_it_deserves() -> None:
    corpus = Path(os.environ.get("ADAPTERS_CORPUS", BESIDE))
    if not corpus.is_dir():
        pytest.skip("no corpus is at hand: ADAPTERS_CORPUS names none, and none lies beside the checkout")
    assert [answer for answer in answers(corpus) if not answer[-1]] == []
