"""One run folder, damage to each kind of its files, and what every verb says then.

`Sample` makes the folder once: two passes, the second after a shard's tar was replaced, so that each file has an older
valid version. `judge` compares a verb on the damaged folder with the same verb on the sound one.
"""

import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import numpy as np
from command import command
from damage_files import (
    ALWAYS,
    ARTEFACTS,
    ASIDE,
    FAILING,
    KNOWN,
    LISTED,
    MAKERS,
    MAKING,
    NAMED,
    NO_EFFECT,
    NOT_VOUCHED_FOR,
    OTHER,
    OTHERS,
    READERS,
    REDONE,
    REPAIRED,
    SECOND,
    SHARD,
    SILENT,
    TRACEBACK,
    UNNAMED,
    VERBS,
    spoil,
)

from mmfilter.synth import SynthOptions, generate

ROOT = Path(__file__).resolve().parent.parent
PASSING = (".progress", ".lock", "in-process")
TIMES = re.compile(r"\d{4}-\d\d-\d\d[T ][\d:.]+(\+00:00)?( UTC)?|\d[\d.,]* (s|MB|files)\b|, at [\d:]+")
STAGES = re.compile(r'<tr data-stage=.*?</tr>|On the clock[^<]*|<i class="k"[^>]*>', re.DOTALL)
TIMED = {"seconds", "started", "did", "date", "when", "check", "embed", "runs", "finished", "selected"}  # keys of JSON


@dataclass(frozen=True)
class Outcome:
    """What a command came to: `files` are the digests of all files afterwards, apart from dates and durations."""

    code: int
    text: str
    files: dict[str, str] = field(repr=False)
    error: str = ""


def without_times(value):
    """A JSON value without what says when it was written and how long it took."""
    if isinstance(value, list):
        return [without_times(item) for item in value]
    return {k: without_times(v) for k, v in value.items() if k not in TIMED} if isinstance(value, dict) else value


def digest(path: Path) -> str:
    """Of a file's bytes; of JSON, pages and cards without times."""
    data = path.read_bytes()
    if path.suffix in (".html", ".md", ".json", ".plan"):
        try:
            if path.suffix in (".json", ".plan"):
                data = json.dumps(without_times(json.loads(data)), sort_keys=True).encode()
            else:
                data = TIMES.sub("#", STAGES.sub("", data.decode())).encode()
        except (ValueError, RecursionError, AttributeError):
            pass  # damaged: its bytes
    return hashlib.sha256(data).hexdigest()


def version(out: Path) -> str:
    """The version of the index that `current` names, else the newest there is."""
    home = out / "index" / "demo-image"
    current = home / "current"
    named = current.read_bytes().decode("latin-1").strip() if current.is_file() else ""
    there = sorted(path.name for path in home.glob("v[0-9]*"))
    return named if named in there else there[-1] if there else "v0001"


def digests(out: Path) -> dict[str, str]:
    """Relative path -> digest; the current index as `vN`, older versions and notes of progress left out."""
    found, current = {}, version(out)
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if not path.is_file() or name in PASSING:
            continue
        if name.startswith("index/demo-image/"):
            if name == "index/demo-image/current":
                found[name] = "vN" if path.read_bytes() == current.encode() else digest(path)
                continue
            if not name.startswith(f"index/demo-image/{current}/"):
                continue
            name = name.replace(current, "vN", 1)
        found[name] = digest(path)
    return found


class Sample:
    """The sound folder, the one of the pass before, and a place where a copy is damaged: always the same path."""

    def __init__(self, home: Path) -> None:
        self.home, self.out, self.sound, self.older = home, home / "run", home / "sound", home / "older"
        generate(str(home / "pool"), SynthOptions(160, per_shard=40, seed=3, size=64))
        generate(str(home / "former"), SynthOptions(160, per_shard=40, seed=4, size=64))
        for stem in (FAILING, SHARD):
            for folder in ("pool", "former"):
                spoil(home / folder / f"{stem}.tar")
        demo = (ROOT / "mmfilter" / "recipes" / "demo.yaml").read_text().replace("min_side: 96", "min_side: 48")
        (home / "demo.yaml").write_text(demo)
        weight = np.random.default_rng(0).normal(size=(1, 128)).astype(np.float32)
        np.savez(home / "head.npz", weight=weight, bias=np.zeros(1, np.float32))
        head = {"name": "look", "file": str(home / "head.npz"), "model": "demo"}
        extra = {"name": "extra", "embed": {"demo": {"model": "demo"}}, "scores": [{"head": head}]}
        (home / "extra.yaml").write_text(json.dumps(extra))
        self.second = home / "second.yaml"
        self.second.write_text(json.dumps({"name": SECOND, "select": {"caption": {"min_words": 4}}}))
        self.uids = {"kept": "", "dropped": ""}
        os.rename(home / "pool" / f"{SHARD}.tar", home / "newer.tar")
        shutil.copy(home / "former" / f"{SHARD}.tar", home / "pool" / f"{SHARD}.tar")
        (self.out / "attempts").mkdir(parents=True)
        (self.out / "attempts" / f"{ASIDE}.json").write_text(json.dumps({"attempts": 3, "error": "it ends workers"}))
        self._make()
        shutil.copytree(self.out, self.older)
        os.replace(home / "newer.tar", home / "pool" / f"{SHARD}.tar")
        self._make("--redo-changed")
        shutil.copytree(self.out, self.sound)
        self.files, self._of_sound = digests(self.sound), dict[str, Outcome]()

    def _make(self, *redo: str) -> None:
        for verb in MAKING:
            done = command(*self.words(verb), *(redo if verb in ("embed", "score", "cluster", "run") else ()))
            assert done.code in (0, 3), (verb, done)
        shutil.rmtree(self.out / f"shards/{SECOND}", ignore_errors=True)
        select = ["select", self.second, "--out", self.out]
        to = ["--pool", self.home / "pool", "--out", self.out / f"shards/{SECOND}", "--local"]
        for words in (select, ["reshard", self.out / f"subsets/{SECOND}.npy", *to]):
            done = command(*words)
            assert done.code in (0, 3), (words, done)
        from mmfilter.subset import Subset

        kept = Subset.read(str(self.out / "subsets/demo.npy")).strings()
        here = Subset.read(str(self.out / f"subsets/{SECOND}.npy")).strings()
        self.uids = {"kept": kept[0], "dropped": next(uid for uid in here if uid not in set(kept))}

    def words(self, verb: str) -> list[str]:
        values = {"r": self.home / "demo.yaml", "e": self.home / "extra.yaml", "p": self.home / "pool", "o": self.out}
        return [word.format(**values, **self.uids) for word in VERBS[verb].split()]

    def restore(self, source: Path | None = None) -> None:
        """A fresh copy of the sound folder, dates kept."""
        shutil.rmtree(self.out, ignore_errors=True)
        shutil.copytree(source or self.sound, self.out)

    def path(self, kind: str, out: Path | None = None) -> Path:
        """The file of a kind of artefact in a folder."""
        out = out or self.out
        return out / ARTEFACTS[kind].replace("vN", version(out))

    def run(self, *words: object) -> Outcome:
        """Run a command, a verb's name or its words; what it printed is without times."""
        try:
            with patch.dict(os.environ, {"MMFILTER_PROGRESS": "none"}):
                done = command(*(self.words(str(words[0])) if len(words) == 1 else words))
        except Exception as error:  # what no verb may raise
            return Outcome(-1, "", digests(self.out), f"{type(error).__name__}: {error}"[:300])
        lines = [line for line in (done.out + done.err).splitlines() if not line.startswith("seconds ")]
        text = "\n".join(TIMES.sub("#", line) for line in lines)
        return Outcome(done.code, text, digests(self.out))

    def of_sound(self, verb: str) -> Outcome:
        """The verb on the sound folder; run once."""
        if verb not in self._of_sound:
            self.restore()
            self._of_sound[verb] = self.run(verb)
        return self._of_sound[verb]


def damages(sample: Sample, kind: str, seed: int, count: int = 3) -> Iterator[tuple[str, bytes | None]]:
    """Each damage to a kind of file: its name and the bytes afterwards, None: deleted. `count` cuts and flips."""
    data = sample.path(kind, sample.sound).read_bytes()
    draw = random.Random(f"{kind} {seed}")
    for at in sorted({len(data) - 1, *(draw.randrange(1, len(data)) for _ in range(count - 1))}):
        yield f"truncated to {at}", data[:at]
    yield "emptied", b""
    yield "deleted", None
    for _ in range(count):
        at, bit = draw.randrange(len(data)), draw.randrange(8)
        yield f"flipped bit {bit} of byte {at}", data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
    yield "appended", data + draw.randbytes(draw.randrange(1, 100))
    default = ARTEFACTS[kind].replace(SHARD, FAILING)
    other = sample.sound / OTHERS.get(kind, default).replace("vN", version(sample.sound))
    older = sample.path(kind, sample.older)
    for name, path in (("of another", other), ("older", older)):
        if path.exists() and (changed := path.read_bytes()) != data:
            yield name, changed


def verbs(kind: str) -> tuple[str, ...]:
    """The verbs that may read a kind of file."""
    some = READERS.get(ARTEFACTS[kind].split("/")[0])
    return (*some, *ALWAYS) if some else tuple(VERBS)


def damage(path: Path, data: bytes | None) -> None:
    path.unlink() if data is None else path.write_bytes(data)


def names(kind: str) -> tuple[str, ...]:
    """What a sentence about a file of this kind says: its name, or its shard, index, subset, ..."""
    path = ARTEFACTS[kind].replace("vN/", "")
    more = {"index": ("index 'demo-image'", "index/demo-image", "has no index"), "concepts": ("concepts/demo",)}
    shard = (SHARD, ASIDE) if re.search(r"/0000000[13]\.", path) else ()
    subset = ("demo: no such subset", "'demo'") if path.startswith("subsets/demo.") else ()
    column = (path.split("/")[1],) if path.startswith("columns/") else ()
    return (path.rsplit("/", 1)[-1], *shard, *subset, *column, *more.get(path.split("/")[0], ()))


def judge(sample: Sample, kind: str, verb: str, before: dict[str, str], after: Outcome) -> str:
    """The verdict on a verb that ran on a folder in which one file was damaged; `before` are the digests then."""
    sound = sample.of_sound(verb)
    if after.error:
        return TRACEBACK
    said = set(after.text.splitlines()) - set(sound.text.splitlines())
    named = any(name in line for line in said for name in names(kind))
    named |= verb == "status" and any(re.search(r" left [1-9]", line) for line in said)
    if after.code != sound.code:
        return NAMED if named else UNNAMED
    everything = {*after.files, *sound.files}
    other = {name for name in everything if after.files.get(name) != sound.files.get(name)}
    written = {name for name in everything if before.get(name) != after.files.get(name)}
    due = {name for name in everything if sample.files.get(name) != sound.files.get(name)}
    if other & (written | due):
        return NAMED if named else SILENT
    mended = ARTEFACTS[kind] not in other
    makers = next((verbs for part, verbs in MAKERS.items() if ARTEFACTS[kind].startswith(part)), ())
    paths = (sample.path(kind), sample.path(kind, sample.sound))
    sizes = [path.stat().st_size if path.exists() else -1 for path in paths]
    if verb in makers and not mended and not named and sizes[0] != sizes[1]:
        return SILENT
    if set(after.text.splitlines()) == set(sound.text.splitlines()):
        return REDONE if mended and ARTEFACTS[kind] in written else NO_EFFECT
    return REDONE if mended else NAMED if named else SILENT


def verdict(sample: Sample, kind: str, data: bytes | None, verb: str) -> tuple[str, Outcome]:
    """Damage a fresh copy, run the verb, judge."""
    sample.of_sound(verb)
    sample.restore()
    damage(sample.path(kind), data)
    before = digests(sample.out)
    outcome = sample.run(verb)
    return judge(sample, kind, verb, before, outcome), outcome


def repaired(sample: Sample, kind: str, data: bytes | None) -> tuple[str, Outcome]:
    """Damage a fresh copy, and say what `verify --deep --repair` made of it."""
    sample.restore()
    damage(sample.path(kind), data)
    before = digests(sample.out)
    outcome = sample.run("verify", sample.out, "--deep", "--repair", "--local")
    if outcome.error:
        return TRACEBACK, outcome
    if outcome.code:
        return (LISTED if "cannot be made again" in outcome.text else OTHER), outcome
    if outcome.files == sample.files:
        return (NO_EFFECT if before == sample.files else REPAIRED), outcome
    return (NOT_VOUCHED_FOR if outcome.files == before else OTHER), outcome


def shown(sample: Sample, verb: str, outcome: Outcome) -> str:
    """How an outcome differs from that on the sound folder, on a line."""
    sound = sample.of_sound(verb)
    if outcome.error:
        return outcome.error
    said = [line for line in outcome.text.splitlines() if line not in sound.text.splitlines()]
    files = sorted(name for name in {*outcome.files, *sound.files} if outcome.files.get(name) != sound.files.get(name))
    return f"exit code {outcome.code} (sound {sound.code}), files {files}, said {' / '.join(said)[:400]}"


def known(kind: str, damaged: str, verb: str) -> str:
    """Why a bad verdict is known, "" where it is not."""
    for of_kind, of_damage, of_verb, why in KNOWN:
        if re.fullmatch(of_kind, kind) and re.match(of_damage, damaged) and re.fullmatch(of_verb, verb):
            return why
    return ""
