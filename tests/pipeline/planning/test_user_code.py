"""The code of a run is compared with the store's, use by use and part by part."""

from pathlib import Path

import pytest

from approxifer.errors import FingerprintError
from approxifer.pipeline.planning.user_code import USER_CODE, check_code

GIVEN = {"model": {"mods.Net": "a", "module helpers": "b"}, "preprocess": {"mods.pre": "c"}}
OUT = Path("out.zarr")


def test_the_same_code_has_no_note() -> None:
    assert check_code(OUT, given=GIVEN, stored={USER_CODE: GIVEN}) == []
    assert check_code(OUT, given={"model": {}}, stored={USER_CODE: {"model": {}}}) == []


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (
            {"model": GIVEN["model"], "preprocess": {"mods.pre": "d"}},
            "preprocess changed: mods.pre",
        ),
        ({**GIVEN, "model": {"mods.Net": "a"}}, r"model changed: module helpers \(not used before"),
        ({**GIVEN, "model": GIVEN["model"] | {"m.f": "e"}}, r"model changed: m.f \(not used now"),
        ({**GIVEN, "preprocess": "crafted"}, "preprocess changed: mods.pre"),
        ({"model": {str(n): "f" for n in range(9)}, "preprocess": {}}, "and 6 more; preprocess"),
    ],
)
def test_what_differs_is_named(stored: object, said: str) -> None:
    with pytest.raises(FingerprintError, match=said) as caught:
        check_code(OUT, given=GIVEN, stored={USER_CODE: stored})
    assert "--accept-code-change" in str(caught.value)
    notes = check_code(OUT, given=GIVEN, stored={USER_CODE: stored}, accept=True)
    assert all("accepted" in note for note in notes)


@pytest.mark.parametrize("stored", [{}, {USER_CODE: None}, {USER_CODE: "crafted"}])
def test_stores_that_hold_no_code(stored: dict[str, object]) -> None:
    (note,) = check_code(OUT, given=GIVEN, stored=stored)
    assert "the code of model and preprocess was kept" in note
    assert check_code(OUT, given={"model": {}, "preprocess": {}}, stored=stored) == []
