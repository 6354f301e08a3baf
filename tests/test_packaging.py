"""The folders at the top of the repository are the packages approxifer.*, and install as such."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import approxifer

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]


def folders() -> set[str]:
    """Every folder of the repository that is a package."""
    skip = {"build", "dist", "tests"}
    top = [p for p in ROOT.iterdir() if p.is_dir() and p.name[0] != "." and p.name not in skip]
    found = {init.parent for folder in top for init in folder.rglob("__init__.py")}
    return {"/".join(folder.relative_to(ROOT).parts) for folder in found}


def test_package_list_is_the_tree():
    mapping = {name: SETUPTOOLS["package-dir"].get(name) for name in SETUPTOOLS["packages"]}
    assert set(mapping.values()) == folders()
    for name, folder in mapping.items():
        assert name.rpartition(".")[2] == Path(folder).name


def test_scripts_exist():
    for target in PYPROJECT["project"]["scripts"].values():
        module, _, function = target.partition(":")
        code = f"from {module} import {function}; assert callable({function})"
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_import_is_light():
    code = (
        "import sys, approxifer\n"
        "assert approxifer.__version__\n"
        "heavy = {'torch', 'distributed', 'dask', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A plain install of a copy of the sources, without network."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for folder in SETUPTOOLS["package-dir"].values():
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, source / folder, ignore=ignore, dirs_exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    done = subprocess.run(
        [*pip, *options, str(source)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.slow
def test_plain_install(installed):
    assert (installed / "approxifer" / "py.typed").is_file()
    lines = [
        "import sys",
        # The editable install's finder would answer before the path.
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]",
        "import importlib",
        f"for name in {SETUPTOOLS['packages']!r}:",
        "    module = importlib.import_module(name)",
        f"    assert module.__file__.startswith({str(installed)!r}), module.__file__",
    ]
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        env=environment, cwd=installed, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_version_of_the_install(installed):
    (metadata,) = installed.glob("approxifer-*.dist-info/METADATA")
    assert f"\nVersion: {approxifer.__version__}\n" in metadata.read_text()
