"""Every file that a verb reads back may be anything: the verb ends with a sentence that names it, or the file is made
again, or it had no part in the result. No traceback, no silence, no wait without end.

Damage x artefact x the verbs that read it, in this process. Of the damages some are drawn; the long form takes all of
them, and so many odd values: MMFILTER_FUZZ=100, MMFILTER_SEED=2.
"""

import json
import os
import random
import re
import shutil
import signal
from pathlib import Path

import pytest
from command import command

from mmfilter.json_file import FORMAT, encode
from mmfilter.subset import Subset

ODD_VALUES = int(os.environ.get("MMFILTER_FUZZ", 2))  # put into each artefact
LONG, SEED = "MMFILTER_FUZZ" in os.environ, os.environ.get("MMFILTER_SEED", "")
FIRST, OTHERS = 5, 2  # damages that the first verb, and each of the others, is tried with
VERBS = {
    "run": "run recipe.yaml --pool pool --out run --local",
    "embed": "embed recipe.yaml --pool pool --out run --local",
    "select": "select second.yaml --out run",
    "reshard": "reshard run/subsets/old.npy --pool pool --out run/shards/old --local",
    "by schedule": "reshard run/schedules/rs2.schedule.json --pool pool --out scheduled --local",
    "report": "report run --name old",
    "card": "card run --name old",
    "explain": "explain UID --out run --name old",
    "status": "status run",
    "inspect": "inspect --out run --local",
    "subset": "subset run/subsets/old.npy & run/subsets/second.npy",
    "compare": "compare old second --out run",
    "query": "query --uid UID --out run -k 3",
    "index": "index run --model demo",
    "leaderboard": "leaderboard rank",
    "rank": "rank run/subsets/old.npy --pool pool --out rank --scale micro --seeds 1 --samples 64 --local",
    "evaluate": "evaluate rank/trials/old/seed-0/model --tasks scenes --out rank/trials/old/seed-0",
}
TRIAL = "rank/trials/old/seed-0"
READ_BY = {
    "run/run.json": "run,embed,select,report,status,inspect,query,reshard",
    "run/metadata/00000001.json": "report",
    "run/failures/00000001.parquet": "select,report,explain,status",
    "run/subsets/old.json": "run,report,explain",
    "run/subsets/old.npy": "report,subset,reshard,compare",
    "run/subsets/old.md": "report,card",
    "run/subsets/old/00000000.parquet": "report,explain",
    "run/schedules/rs2.schedule.json": "by schedule",
    "run/shards/old/reshard.plan": "reshard",
    "run/shards/old/meta.json": "reshard",
    "run/shards/old/00000000_stats.json": "reshard",
    "run/index/demo-image/current": "query",
    "run/index/demo-image/v0001/index.json": "query,index",
    "run/concepts/demo/concepts.json": "card",
    "rank/rank.json": "leaderboard",
    f"{TRIAL}/evaluate.json": "rank",
    f"{TRIAL}/eval_results.jsonl": "leaderboard",
    f"{TRIAL}/outcomes/scenes__colour.json": "leaderboard",
    f"{TRIAL}/outcomes/scenes__colour.npy": "leaderboard",
    f"{TRIAL}/model/train.json": "rank",
    f"{TRIAL}/model/open_clip_config.json": "rank",
    f"{TRIAL}/model/bpe.txt.gz": "evaluate",
    f"{TRIAL}/model/open_clip_model.safetensors": "evaluate",
    "rank/leaderboard.json": "leaderboard",
    "recipe.yaml": "run",
}
"""Artefact -> the verbs that are tried."""
BYTES = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
    "UTF-16": lambda data: "{}".encode("utf-16") + b"\xd8",
    "deep": lambda data: b"[" * 100_000,
    "deep objects": lambda data: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a list": lambda data: b"[1]",
    "an object": lambda data: b"{}",
    "null": lambda data: b"null",
    "a number": lambda data: b"9" * 5000,
}
ODD = [None, [], {}, "x", "../../../x", -1, 1e400, float("nan"), True, [[1]], 10**30, "a\0b", "\ud83d", {"a": []}]


def leaves(value, at=()):
    """Where a value may be put in the place of another."""
    inside = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, inner in inside:
        yield (*at, key)
        yield from leaves(inner, (*at, key))


def with_odd(data, draw):
    """JSON with an odd value in one place, or without one of its fields."""
    value = json.loads(data)
    *way, last = draw.choice(sorted(leaves(value), key=str))
    inner = value
    for key in way:
        inner = inner[key]
    if draw.random() < 0.2 and isinstance(inner, dict):
        del inner[last]
    else:
        inner[last] = draw.choice(ODD)
    return json.dumps(value).encode()


def damages(path):
    data = path.read_bytes()
    yield from ((name, lambda p, how=how: p.write_bytes(how(data))) for name, how in BYTES.items())
    yield "a folder", lambda p: (p.unlink(), p.mkdir())
    yield "a pipe", lambda p: (p.unlink(), os.mkfifo(p))
    if path.suffix in (".json", ".plan"):
        draw = random.Random(path.name + SEED)
        for number in range(ODD_VALUES):
            odd = with_odd(data, draw)
            yield f"odd {number}: {odd[-60:]!r}", lambda p, odd=odd: p.write_bytes(odd)


def told(text):
    """What a command says, without times."""
    return re.sub(r"(?m)^seconds.*|[\d.]+ s\b", "", text)


def waits(*_):
    raise AssertionError("it waits without end")


@pytest.mark.slow
@pytest.mark.parametrize("artefact", READ_BY)
def test_a_file_that_is_read_back_may_be_anything(artefact, unpacked, tmp_path, monkeypatch):
    uid = Subset.read(str(unpacked / "run/subsets/old.npy")).strings()[0]
    signal.signal(signal.SIGALRM, waits)
    wrong, draw, every = [], random.Random(artefact + SEED), list(damages(unpacked / artefact))
    for n, verb in enumerate(READ_BY[artefact].split(",")):
        words = VERBS[verb].replace("UID", uid).split()
        expected = attempt(words, unpacked, tmp_path, monkeypatch, lambda p: None, artefact)
        for name, damage in every if LONG else draw.sample(every, OTHERS if n else FIRST):
            done = attempt(words, unpacked, tmp_path, monkeypatch, damage, artefact)
            if problem := judge(done, expected, artefact):
                wrong.append(f"{verb}, {name}: {problem}")
    assert not wrong, "\n".join(wrong)


WRITTEN_AGAIN = {"run/shards/old/meta.json"}
"""What the verb that wrote it writes again where it is damaged."""


def attempt(words, unpacked, tmp_path, monkeypatch, damage, artefact):
    """The command in a fresh copy of the folders, one file of them damaged."""
    shutil.rmtree(tmp_path / "copy", ignore_errors=True)
    shutil.copytree(unpacked, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    damage(tmp_path / "copy" / artefact)
    signal.alarm(120)
    try:
        return command(*words)
    except Exception as error:
        return error
    finally:
        signal.alarm(0)


def judge(done, expected, artefact):
    """What is wrong with how a command ended; "" where nothing is."""
    if isinstance(done, Exception) or "Traceback" in done.err:
        return f"a traceback: {done!r}"[:500]
    file = Path(artefact)
    named = any(word in done.err for word in (file.name, file.stem, file.parent.name, "no index"))
    named |= f"damaged commit: shard {file.stem}" in done.out
    if done.code == expected.code and artefact in WRITTEN_AGAIN:
        return ""
    if done.code in (1, 2) and done.code != expected.code:
        return "" if named else f"its message names no file: {done.err[-300:]}"
    if done.code != expected.code:
        return f"exit code {done.code}: {done.err[-300:]}"
    same = told(done.out) == told(expected.out) or "unfinished: old lacks" in done.out
    return "" if same or named else f"it says something else without a word: {done.out[-300:]}"


NEWER = {
    "run/run.json": ("run", "embed", "select", "report", "status", "query"),
    "run/subsets/old.json": ("report", "explain", "card"),
    "run/schedules/rs2.schedule.json": ("by schedule",),
    "run/shards/old/reshard.plan": ("reshard",),
    "run/index/demo-image/v0001/index.json": ("query", "index"),
    "run/metadata/00000001.json": ("report",),
    "rank/rank.json": ("leaderboard", "rank"),
    f"{TRIAL}/evaluate.json": ("rank",),
    f"{TRIAL}/model/train.json": ("rank",),
}


@pytest.mark.parametrize("artefact", NEWER)
def test_a_file_of_a_newer_version_stops_with_a_sentence(artefact, old, mmfilter):
    file, uid = old / artefact, Subset.read("run/subsets/old.npy").strings()[0]
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": FORMAT + 1}))
    before = file.read_bytes()
    for verb in NEWER[artefact]:
        code, out, err = mmfilter(*VERBS[verb].replace("UID", uid).split(), cwd=old)
        assert code == 1 and f"{file.name}: was written by a newer mmfilter" in err, (verb, out, err)
        assert file.read_bytes() == before


def test_what_is_written_has_a_format(old, mmfilter):
    for verb in ("run", "select", "index"):
        mmfilter(*VERBS[verb].split(), *(["--fresh"] if verb == "index" else []), cwd=old)
    mmfilter(*["reshard", "run/subsets/old.npy", "--pool", "pool", "--out", "new", "--local"], cwd=old)
    mmfilter(*["schedule", "run", "--kind", "rs2", "--epochs", "2"], cwd=old)
    written = ["run/run.json", "run/subsets/second.json", "run/index/demo-image/v0002/index.json"]
    written += ["new/reshard.plan", "run/schedules/rs2.schedule.json"]
    assert {path: json.loads((old / path).read_text())["format"] for path in written} == dict.fromkeys(written, FORMAT)


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b'{"pool": 3}', b'{"pool": ["a.tar"], "left_out": {}}', b"{}"])
@pytest.mark.parametrize("verb", ["run", "embed"])
def test_a_damaged_record_of_the_run_is_mended_by_the_command_that_the_message_names(verb, data, old, mmfilter):
    (old / "run/run.json").write_bytes(data)
    code, _, err = mmfilter("select", "second.yaml", "--out", "run", cwd=old)
    assert code == 1 and "run.json: is damaged" in err and "`mmfilter run` or `mmfilter embed`" in err
    code, _, err = mmfilter(*VERBS[verb].split(), cwd=old)
    assert code == 3 and "run.json.damaged" in err
    assert (old / "run/run.json.damaged").read_bytes() == data
    assert mmfilter("select", "second.yaml", "--out", "run", cwd=old)[0] == 3
    assert mmfilter("status", "run", cwd=old)[1].startswith("done")


@pytest.mark.parametrize("name", ["../../x", "..", "a/b", "", "a\0b", "\ud83d"])
def test_a_shard_s_name_leads_nowhere_else(name, old, mmfilter):
    run = json.loads((old / "run/run.json").read_text())
    (old / "run/run.json").write_bytes(encode({**run, "shard_names": [name, "00000001", "00000002"]}))
    code, _, err = mmfilter("status", "run", cwd=old)
    assert code == 1 and "a shard cannot be called" in err


@pytest.mark.parametrize("subset", ["../subsets/old.npy", "/etc/passwd", "a/../../x.npy", "s3://a/b.npy"])
def test_a_schedule_leads_to_no_file_elsewhere(subset, old, mmfilter):
    Path("run/schedules/rs2.schedule.json").write_text(json.dumps({"epochs": [{"subset": subset}]}))
    code, _, err = mmfilter(*VERBS["by schedule"].split(), cwd=old)
    assert code == 1 and "epochs[0].subset" in err


LAUGHS = "a0: &a0 [1]\n" + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(12))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n + 1}: &a{n + 1} {{<<: [{', '.join([f'*a{n}'] * 9)}]}}\n" for n in range(12))
RECIPES = {
    "an alias of itself": "name: x\nselect: &a {all: [*a]}",
    "aliases without end": f"name: x\n{LAUGHS}",
    "merges without end": f"name: x\n{MERGES}",
    "deep": "[" * 100_000,
    "a number without end": "name: x\nread: {max_pixels: " + "9" * 5000 + "}",
    "a large number": "name: x\nread: {max_pixels: " + "9" * 50 + "}",
    "no date": "name: x\nabout: 2024-99-99",
    "a date": "name: x\nabout: 2024-01-01",
    "a tag of Python's": "name: !!python/object/apply:os.system [ls]",
    "bytes": "name: x\nabout: !!binary aGk=",
    "a set": "name: x\nabout: !!set {a, b}",
    "NUL": 'name: x\nabout: "a\\0b"',
    "half a character": 'name: x\nabout: "\\ud83d"',
    "keys that are lists": "name: x\n? [a]\n: b",
    "empty": "",
    "long": "name: x\nabout: " + "x" * (5 << 20),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_may_be_anything(name, tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPES[name])
    done = command("select", tmp_path / "r.yaml", "--out", tmp_path)
    assert done.code == 2 and "recipe r.yaml: " in done.err and len(done.err) < 500
