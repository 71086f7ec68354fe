"""What GNU tar writes, in every format and with every kind of entry, through the commands: a sound tar is whole."""

import json
import os
import shutil
import subprocess
from collections import Counter

import polars as pl
import pytest
from jobs_util import recipe_text
from tars import rows_of, sample, uid

COUNT = 12
GNU_TAR = shutil.which("tar") and b"GNU" in subprocess.run(["tar", "--version"], capture_output=True).stdout
pytestmark = pytest.mark.skipif(not GNU_TAR, reason="no GNU tar")


@pytest.fixture
def files(tmp_path):
    """A folder of COUNT samples, some of them in folders below."""
    folder = tmp_path / "files"
    for n in range(COUNT):
        place = folder / ("below/more" if n % 3 == 2 else "")
        place.mkdir(parents=True, exist_ok=True)
        for name, data in sample(n, text=f"a picture number {n}"):
            (place / name).write_bytes(data)
    return folder


def pack(files, pool, *options):
    """GNU tar over the folder's names; the path of the shard."""
    pool.mkdir(exist_ok=True)
    path = pool / "00000000.tar"
    subprocess.run(["tar", "-C", files, "-cf", path, *map(str, options), "."], check=True, capture_output=True)
    return path


FORMS = ("v7", "oldgnu", "gnu", "ustar", "posix")
WAYS = {
    **{form: [f"--format={form}"] for form in FORMS},
    **{f"{form} incremental": [f"--format={form}", "--listed-incremental=SNAR"] for form in ("oldgnu", "gnu", "posix")},
    **{f"{form} with a label": [f"--format={form}", "-V", "a label"] for form in ("oldgnu", "gnu", "posix")},
    **{f"sparse {v}": ["--format=posix", "--sparse", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0")},
    "gnu sparse": ["--format=gnu", "--sparse"],
    "a global header": ["--format=posix", "--pax-option=globexthdr.name=g,comment=words"],
    "hard links as files": ["--format=gnu", "--hard-dereference"],
    "long names": ["--format=gnu", f"--transform=s,^,{'deep/' * 30},"],
    "long pax names": ["--format=posix", f"--transform=s,^,{'deep/' * 30},"],
}


@pytest.mark.parametrize("way", WAYS)
def test_a_sound_tar_of_gnu_gives_each_sample_and_no_finding(files, tmp_path, mmfilter, way):
    twin = files / "000000000.jpg"
    twin.unlink()
    os.link(files / "000000001.jpg", twin)
    options = [word.replace("SNAR", str(tmp_path / "snar")) for word in WAYS[way]]
    pack(files, tmp_path / "pool", *options)
    code, said, _ = mmfilter("inspect", tmp_path / "pool", "--json", "--local")
    found = json.loads(said)
    assert (code, found["samples"], found["failed"], found["findings"]) == (0, COUNT, {}, [])


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_an_incremental_dump_with_hard_links_is_run_and_resharded(files, tmp_path, mmfilter, form):
    """Images of hard links are where the table says, and are copied."""
    twin = files / "000000000.jpg"
    twin.unlink()
    os.link(files / "below/more/000000002.jpg", twin)
    options = [f"--format={form}", f"--listed-incremental={tmp_path / 'snar'}", "--sort=name"]
    path = pack(files, tmp_path / "pool", *options)
    (tmp_path / "r.yaml").write_text(recipe_text("x", embed={}, scores=["phash"], select="everything"))
    out = tmp_path / "out"
    code, said, err = mmfilter("run", tmp_path / "r.yaml", "--pool", tmp_path / "pool", "--out", out, "--local")
    assert code == 0, err
    assert f"in {COUNT} = kept {COUNT} (100.0%) + dropped 0 + failed 0" in said
    data, table = path.read_bytes(), pl.read_parquet(out / "metadata/00000000.parquet")
    expected = {row["uid"]: row for row in table.to_dicts()}
    for n in range(COUNT):
        row, image = expected[uid(n)], sample(2 if n == 0 else n)[0][1]
        assert data[row["offset"] : row["offset"] + row["size"]] == image
    copied, failed, _ = rows_of(out / "shards/t/00000000.tar")
    assert not failed and {u: image for u, (image, _) in copied.items()} == {
        uid(n): sample(2 if n == 0 else n)[0][1] for n in range(COUNT)
    }


@pytest.mark.parametrize("options", [["gnu"], ["posix", "0.0"], ["posix", "0.1"], ["posix", "1.0"]])
@pytest.mark.parametrize("extents", [1, 30])
def test_a_sparse_member_is_its_samples_failure(files, tmp_path, mmfilter, options, extents):
    with open(files / "000000003.jpg", "r+b") as file:
        for at in range(extents):
            file.seek(at << 16)
            file.write(b"\xff" * 4096)
        file.truncate((extents << 16) + 12345)
    if os.stat(files / "000000003.jpg").st_blocks * 512 > extents << 15:
        pytest.skip("no holes on this disk")
    version = [f"--sparse-version={options[1]}"] if options[1:] else []
    pack(files, tmp_path / "pool", f"--format={options[0]}", "--sparse", *version)
    code, said, _ = mmfilter("inspect", tmp_path / "pool", "--json", "--local")
    found = json.loads(said)
    assert (code, found["samples"], found["failed"]) == (3, COUNT - 1, {"member_sparse": 1})
    assert [finding["what"] for finding in found["findings"]] == ["member_sparse"]
    assert "--sparse" in found["findings"][0]["text"] and "000000003" in found["findings"][0]["text"]


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_pieces_of_a_volume_say_so(files, tmp_path, form):
    """What a volume goes on with is no image; every other sample is there once over the volumes."""
    volumes = [tmp_path / f"{n:08d}.tar" for n in range(12)]
    words = [
        "tar",
        f"--format={form}",
        "-C",
        files,
        "-M",
        "-V",
        "part",
        "-L",
        "10",
        "--sort=name",
        "-cf",
        volumes[0],
        ".",
    ]
    answers = "".join(f"n {path}\n" for path in volumes[1:])
    subprocess.run(list(map(str, words)), input=answers, capture_output=True, text=True, check=True)
    valid, failed = {}, []
    for path in filter(os.path.exists, volumes):
        some, bad, _ = rows_of(path)
        assert not valid.keys() & some.keys()
        valid, failed = {**valid, **some}, failed + bad
    originals = {uid(n): (sample(n)[0][1], f"a picture number {n}") for n in range(COUNT)}
    assert valid and all(originals[found] == row for found, row in valid.items())
    statuses = Counter(row.status for row in failed)
    assert statuses["member_continued"] and {row.key for row in failed if row.status == "member_continued"}
    assert all("join the volumes" in row.error for row in failed if row.status == "member_continued")
