from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from stores import make_corpus, open_mutated
from watched import watch


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    make_corpus(folder)
    return folder


@pytest.mark.filterwarnings("ignore")  # of zarr, about names that it does not know
@pytest.mark.timeout(600)
@pytest.mark.parametrize("cases", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_mutated_stores_end_in_an_error_of_ours(
    corpus: Path, tmp_path: Path, cases: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Also where somebody has allowed numcodecs to unpickle, or it is an older one.
    monkeypatch.setattr("numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE", True)
    ended = Counter(
        watch(number, tmp_path, lambda rng, folder: open_mutated(rng, corpus, folder))
        for number in range(cases)
    )
    assert ended[""], "every one was refused: the corpus is not what is expected"
    assert ended["InputError"]
    assert ended["StoreError"]
