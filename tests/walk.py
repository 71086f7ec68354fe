"""The walk of a new user: the README's blocks, then those of docs/, run in their order in one folder.

`make walk`, or `python tests/walk.py [PAGE...] [--folder DIR]`. The folder starts as a fresh clone does: a Makefile
and .venv, and nothing else. A block that cannot run here stands below a comment that says why; one that is a file
stands below the file's name:

    <!-- not run: REASON -->
    <!-- file: mine.yaml -->

README's shell blocks are run by bash as they stand. A page of docs/ has its `mmfilter` lines run in this process,
which is as good as a process each and takes a tenth of the time. YAML and TOML blocks are parsed.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
README, DOCS = ROOT / "README.md", ROOT / "docs"
COMMENT = re.compile(r"<!-- (not run|file): (.+?) -->")
RUN = ("sh", "python", "yaml", "toml")
SHELL_ONLY = re.compile(r"[|&;<>$`*?()]")
PRELUDE = f"""
set -euo pipefail
make() {{ command make --old-file=install "$@"; }}
mmfilter() {{
  if [ "$1" != serve ]; then "$PYTHON" -m jobs "$@"; return; fi
  "$PYTHON" {shlex.quote(__file__)} --stop
  "$PYTHON" -m jobs "$@" 2> serve.log & echo $! > serve.pid
  for _ in $(seq 240); do
    if grep -q http:// serve.log; then return; fi
    kill -0 "$(cat serve.pid)" 2> /dev/null || break
    sleep 0.25
  done
  cat serve.log >&2
  return 1
}}
"""


def all_pages() -> list[Path]:
    """The README, then the pages of docs/ in the order in which docs/README.md names them."""
    named = [DOCS / name for name in re.findall(r"\]\(([\w-]+\.md)\)", (DOCS / "README.md").read_text("utf-8"))]
    rest = [page for page in sorted(DOCS.glob("*.md")) if page not in named]
    return list(dict.fromkeys([README, *named, *rest]))


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, and what the comment above it says."""

    page: Path
    line: int
    language: str
    text: str
    skipped: str = ""
    file: str = ""

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The page's fenced blocks in their order."""
    said: dict[str, str] = {}
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), 1))
    for number, line in lines:
        if line.startswith("```"):
            body = []
            for _, inner in lines:
                if inner.startswith("```"):
                    break
                body.append(inner)
            text = "\n".join(body) + "\n"
            yield Block(page, number, line[3:].strip(), text, said.get("not run", ""), said.get("file", ""))
        found = COMMENT.fullmatch(line.strip())
        said = {**said, found[1]: found[2]} if found else said if not line.strip() else {}


def commands(block: Block) -> list[list[str]] | None:
    """The words of each line where all are plain `mmfilter` commands, else None: the shell has something to do."""
    found = []
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        bare = re.sub(r"'[^']*'|\"[^\"$`]*\"", "", line.split(" # ")[0])
        if words and (words[0] != "mmfilter" or words[1] == "serve" or SHELL_ONLY.search(bare)):
            return None
        if words:
            found.append(words[1:])
    return found


def run(block: Block, processes: bool) -> str:
    """Run a block in the current folder; what is wrong with it, or nothing."""
    if block.file:
        Path(block.file).parent.mkdir(parents=True, exist_ok=True)
        Path(block.file).write_text(block.text, encoding="utf-8")
    if block.language == "yaml":
        yaml.safe_load(block.text)
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "sh":
        plain = None if processes else commands(block)
        return in_process(plain) if plain is not None else by(["bash", "-c", PRELUDE + block.text])
    elif block.language == "python" and not block.file:
        return by([sys.executable, "-c", block.text])
    return ""


def in_process(lines: list[list[str]]) -> str:
    from command import command

    for words in lines:
        code, out, err = command(*words)
        if code:
            return f"$ mmfilter {shlex.join(words)}\n{out[-2000:]}{err[-2000:]}exit code {code}"
    return ""


def by(words: list[str]) -> str:
    """Run a program with files for its output, which a service in the background may hold open."""
    with tempfile.TemporaryFile("w+") as said:
        code = subprocess.run(words, stdout=said, stderr=subprocess.STDOUT, timeout=600).returncode
        said.seek(0)
        text = said.read()
    return f"{text[-4000:]}exit code {code}" if code else "a traceback:\n" + text if "Traceback" in text else ""


def stop_service() -> str:
    """End the service of `mmfilter serve` as a person does, by Ctrl-C; what went wrong at that."""
    pid = Path("serve.pid")
    if not pid.exists():
        return ""
    number = int(pid.read_text())
    pid.unlink()
    try:
        os.kill(number, 2)
        for _ in range(100):
            os.kill(number, 0)
            if Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                break
            time.sleep(0.1)
        else:
            os.kill(number, 9)
            return "the service did not end within 10 s of Ctrl-C"
    except (ProcessLookupError, FileNotFoundError):
        pass
    said = Path("serve.log").read_text()
    return said if "Traceback" in said else ""


def clone(folder: Path) -> None:
    """What a fresh clone has that the blocks use, with the environment that runs this."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in (("Makefile", ROOT / "Makefile"), ("benchmarks", ROOT / "benchmarks"), (".venv", sys.prefix)):
        if not (folder / name).exists():
            (folder / name).symlink_to(target)
    os.environ |= {"PYTHON": sys.executable, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    os.chdir(folder)


def walk(pages: list[Path], processes: bool) -> int:
    """Run the pages' blocks in the current folder, README's each command in a process. Returns how many failed."""
    failed = 0
    for page in pages:
        started, ran, skipped = time.monotonic(), 0, 0
        for block in blocks(page):
            if block.skipped or not (block.file or block.language in RUN):
                skipped += bool(block.skipped)
                continue
            begun = time.monotonic()
            wrong = run(block, processes and page == README)
            ran, failed = ran + 1, failed + bool(wrong)
            if wrong or time.monotonic() - begun > 5:
                print(f"  {block.where}: {'FAILED ' if wrong else ''}{time.monotonic() - begun:.1f} s", flush=True)
            if wrong:
                print(f"{block.text}{wrong}", flush=True)
        if wrong := stop_service():
            print(f"  {page.name}: the service: {wrong}")
            failed += 1
        name = page.relative_to(ROOT)
        print(f"{name}: {ran} blocks ran, {skipped} cannot run here, {time.monotonic() - started:.1f} s", flush=True)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pages", nargs="*", type=Path, help="Markdown files (default: the README and all of docs/)")
    parser.add_argument("--folder", type=Path, help="where to run them, and to leave what they wrote")
    parser.add_argument("--one-process", action="store_true", help="also README's plain commands in this process")
    parser.add_argument("--stop", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.stop:
        print(stop_service(), end="")
        return 0
    pages = [page.resolve() for page in asked.pages] or all_pages()
    with tempfile.TemporaryDirectory(prefix="mmfilter-walk-", ignore_cleanup_errors=True) as temporary:
        clone(asked.folder.resolve() if asked.folder else Path(temporary))
        try:
            failed = walk(pages, not asked.one_process)
        finally:
            stop_service()
            os.chdir(ROOT)
    print(f"{failed} blocks failed" if failed else "every block that can run did")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
