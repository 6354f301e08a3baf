"""The Python blocks of the guide and the cookbook run, in order, in one namespace each."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

from approxifer.benchmarks.accuracy.report import page

ROOT = Path(__file__).parents[1]


def blocks(page: str) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("page", "least"), [("docs/guide.md", 6), ("docs/xarray.md", 3)])
def test_pages_run(page: str, least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = blocks(page)
    assert len(found) >= least
    namespace: dict[str, object] = {"__name__": "page"}
    for block in found:
        exec(compile(block, page, "exec"), namespace)


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/guide.md",
        "docs/xarray.md",
        "docs/slurm.md",
        "docs/security.md",
        "docs/architecture.md",
        "docs/measurements.md",
        "CONTRIBUTING.md",
    ],
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
