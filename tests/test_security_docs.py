"""SECURITY.md names tests that exist, and docs/dependencies.md every dependency with its version."""

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def functions(file):
    """Names of the test functions in a file of tests/."""
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def tables(page):
    """The rows of all tables of a page, as lists of cells."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]


def test_every_promise_has_a_test_that_exists():
    promises = [row for row in tables("SECURITY.md") if "::" in row[-1]]
    assert len(promises) >= 18
    for promise, tests in promises:
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", tests)
        assert named and tests.count("`") == 2 * len(named), promise
        for file, test in named:
            assert (ROOT / "tests" / file).is_file() and test in functions(file), f"{file}::{test}"


def test_the_dependencies_are_those_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted: dict[str, set[str]] = {}
    for extra, lines in {"always": project["dependencies"], **project["optional-dependencies"]}.items():
        for line in lines:
            if (name := re.match(r"[\w.-]+", line)[0]) != "mmfilter":
                wanted.setdefault(name, set()).add(extra)
    told = {row[0].strip("`"): row[1:] for row in tables("docs/dependencies.md") if len(row) == 5 and "`" in row[0]}
    assert {name: set(row[1].split(", ")) for name, row in told.items()} == wanted
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    versions = dict(line.split(";")[0].strip().split("==") for line in lines if "==" in line and line[0] != "#")
    plain = {re.sub("[-_.]+", "-", name.lower()): version for name, version in versions.items()}
    for name, (version, _, licence, source) in told.items():
        assert version == plain[re.sub("[-_.]+", "-", name.lower())] and licence and source, name


def test_what_is_packaged_is_listed():
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    told = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    assert set(packaged) == {"mmfilter", "index", "jobs"}, "what is packaged has its place in docs/dependencies.md"
    for path in (ROOT / "mmfilter/models").iterdir():
        assert path.name in told, path
    data = {".gz", ".npy", ".npz", ".parquet", ".safetensors", ".bin", ".ftz", ".ttf", ".woff2", ".onnx", ".csv"}
    for folder in packaged:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in data:
                assert "models/demo" in str(path), f"{path}: say in docs/dependencies.md whose it is"
