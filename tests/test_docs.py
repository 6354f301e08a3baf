"""The guide's Python blocks run; links lead somewhere; what is generated is up to date."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

from approxifer.benchmarks.accuracy.report import page

ROOT = Path(__file__).parents[1]


#: Pages whose Python blocks run, in this order, in one namespace.
GUIDE = ["docs/guide.md", "docs/byzantine.md", "docs/resume.md", "docs/clusters.md"]


def blocks(page: str) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("pages", [GUIDE, ["docs/xarray.md"]])
def test_pages_run(pages: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "guide"}
    for name in pages:
        found = blocks(name)
        assert found
        for block in found:
            exec(compile(block, name, "exec"), namespace)


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / page).read_text())
    for link in links:
        assert ((ROOT / page).parent / link).exists(), link


def test_the_results_are_generated_from_their_figures() -> None:
    """``accuracy --out docs/results.json --report docs/results.md`` made both."""
    figures = json.loads((ROOT / "docs/results.json").read_text())
    text = (ROOT / "docs/results.md").read_text()
    pictures = re.findall(r"^!\[\]\((.+)\)$", text, re.M)
    assert len(pictures) >= 3
    assert all((ROOT / "docs" / picture).exists() for picture in pictures)
    assert text == page(figures, pictures)


def test_python_blocks_of_the_readme_are_python() -> None:
    for block in blocks("README.md"):
        compile(block, "README.md", "exec", flags=0x2000)  # top-level await allowed


def test_the_page_of_arguments_is_made_from_their_declaration() -> None:
    made = runpy.run_path(str(ROOT / "docs/arguments.py"))["page"]()
    assert (ROOT / "docs/arguments.md").read_text() == made, "run: python docs/arguments.py"
