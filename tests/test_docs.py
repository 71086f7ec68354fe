"""The docs name what there is: verbs, options, scores, rules, recipes, tests, and files that links lead to."""

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

from jobs import cli
from mmfilter.plugs import Score
from mmfilter.recipe import packaged
from mmfilter.rules import TABLE as RULES
from mmfilter.scores import TABLE as SCORES
from mmfilter.tasks import TABLE as TASKS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
EVERYWHERE = ("help", "progress_", "quiet", "verbose")  # of every verb; operations.md has them
CODE = re.compile(r"```.*?```", re.DOTALL)


def verbs() -> dict[str, Any]:
    """Verb -> its command, as the CLI has it."""
    if not cli.app.registered_commands:
        cli.register()
    return dict(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]


def params(command: Any) -> list[Any]:
    """A verb's parameters; of a verb with verbs of its own, those of all of them."""
    return [*command.params, *(p for inner in getattr(command, "commands", {}).values() for p in inner.params)]


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def first_cells(page: Path) -> list[str]:
    """What stands in the first column of the page's tables."""
    return [line.split("|")[1].strip() for line in text(page).splitlines() if line.startswith("|")]


def anchors(page: Path) -> set[str]:
    """The headings' anchors, by GitHub's rule."""
    found = re.findall(r"^#+ (.+)$", CODE.sub("", text(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("verb", sorted(verbs()))
def test_every_verb_has_a_page_that_names_its_options(verb: str) -> None:
    page = ROOT / "docs" / f"{verb}.md"
    assert page.is_file(), f"docs/{verb}.md is not there: write a page for the verb"
    told = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", " ".join(first_cells(page))))
    options = [p for p in params(verbs()[verb]) if p.param_type_name == "option" and p.name not in EVERYWHERE]
    known = {flag for option in options for flag in (*option.opts, *option.secondary_opts) if flag.startswith("--")}
    assert told == known, f"{page.name}: not told {sorted(known - told)}, not there {sorted(told - known)}"
    for argument in (p for p in params(verbs()[verb]) if p.param_type_name == "argument"):
        assert str(argument.metavar or argument.name).upper() in text(page).upper()


def test_operations_has_the_options_of_every_verb() -> None:
    told = " ".join(first_cells(ROOT / "docs/operations.md"))
    assert all(option in told for option in ("--progress", "--quiet", "--verbose", "--out", "--help"))


@pytest.mark.parametrize(("kind", "names"), [("score", SCORES), ("rule", RULES), ("recipe", packaged())], ids=str)
def test_methods_names_everything_that_is_registered(kind: str, names: Any) -> None:
    told = {cell.strip("`") for cell in first_cells(ROOT / "docs/methods.md")}
    assert not set(names) - told, f"docs/methods.md: its table lacks the {kind} {sorted(set(names) - told)}"


def test_evaluate_names_every_task() -> None:
    told = {cell.strip("`") for cell in first_cells(ROOT / "docs/evaluate.md")}
    assert not set(TASKS) - told, f"docs/evaluate.md: its table lacks the task {sorted(set(TASKS) - told)}"


def test_readme_names_verbs_and_recipes() -> None:
    readme = text(ROOT / "README.md")
    assert not [verb for verb in verbs() if f"(docs/{verb}.md)" not in readme]
    assert not [name for name in packaged() if f"`{name}`" not in readme]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", text(page))):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target} leads nowhere"
        assert not anchor or anchor in anchors(file), f"{page.name}: {target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_shown_exist(page: Path) -> None:
    for block in re.findall(r"```sh\n(.*?)```", text(page), re.DOTALL):
        for verb, rest in re.findall(r"^(?:\.venv/bin/)?mmfilter (\w+)(.*)$", block, re.MULTILINE):
            assert verb in verbs(), f"{page.name}: mmfilter {verb}"
            known = {flag for p in params(verbs()[verb]) for flag in (*p.opts, *p.secondary_opts)}
            used = re.findall(r"(?<=\s)--[a-z0-9-]+", rest.split(" # ")[0])
            assert set(used) <= known, f"{page.name}: mmfilter {verb}: {used}"


def test_tests_that_are_named_exist() -> None:
    files = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "tests").glob("test_*.py")]
    known = {node.name for tree in files for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    faults = ROOT / "docs/faults.md"
    named = set(re.findall(r"`(test_\w+)`", text(faults)))
    assert named and not named - known
    assert {cell for cell in first_cells(faults) if cell.isdigit()} >= {str(n) for n in range(1, 30)}


def test_statuses_are_listed() -> None:
    told = set(re.findall(r"`(\w+)`", " ".join(first_cells(ROOT / "docs/formats.md"))))
    source = (ROOT / "mmfilter/samples.py").read_text() + (ROOT / "mmfilter/images.py").read_text()
    given = set(re.findall(r'(?:DecodeError|return|problem =|\("",) ?\(?"([a-z]+(?:_[a-z]+)+)",', source))
    assert given and not given - told, f"docs/formats.md: its statuses lack {sorted(given - told)}"


def test_the_readmes_score_works() -> None:
    blocks = re.findall(r"```python\n(.*?)```", text(ROOT / "README.md"), re.DOTALL)
    (code,) = [block for block in blocks if "class " in block]
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    score = namespace["Sharpness"](side=64)
    assert isinstance(score, Score) and score.columns == ("sharpness",)
    noise = np.random.default_rng(0).integers(0, 256, (80, 60, 3), dtype=np.uint8)
    found = score({"image": [Image.new("RGB", (60, 80)), Image.fromarray(noise)]})["sharpness"]
    assert found.shape == (2,) and found.dtype == np.float32 and found[0] == 0 < found[1]
