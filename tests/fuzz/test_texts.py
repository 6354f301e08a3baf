from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from texts import make_corpus, read_mutated
from watched import watch


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    make_corpus(folder)
    return folder


@pytest.mark.timeout(600)
@pytest.mark.parametrize("cases", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_mutated_texts_end_in_an_error_of_ours(corpus: Path, tmp_path: Path, cases: int) -> None:
    ended = Counter(
        watch(number, tmp_path, lambda rng, folder: read_mutated(rng, corpus, folder))
        for number in range(cases)
    )
    assert ended[""], "every one was refused: the corpus is not what is expected"
    assert ended["ConfigError"]
    assert ended["StoreError"]
    assert not list(tmp_path.rglob("OWNED"))
