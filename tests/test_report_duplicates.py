"""The report shows duplicates beside the sample that is kept for them, each with a number of these two."""

import re
from pathlib import Path

import numpy as np
from test_evidence import EPS, marked, mixed, turned

from index.evidence import Evidence
from index.pool import Pool
from mmfilter.report import ReportOptions, build_report


def reported(out, tmp_path, mmfilter):
    (tmp_path / "r.yaml").write_text("name: r\nselect: {not_duplicate: {}}\n")
    assert mmfilter("select", tmp_path / "r.yaml", "--out", out)[0] == 0
    return Path(build_report(out, "r", ReportOptions(samples=3))).read_text(encoding="utf-8")


def test_the_most_doubtful_of_each_kind(tmp_path, mmfilter):
    angles = [step * 3 + group * 30 for group in range(8) for step in range(6)]  # chains of six, 3 degrees apart
    out, uids, _, _ = mixed(tmp_path / "o", turned(*angles), "greedy")
    text = reported(out, tmp_path, mmfilter)
    known = Evidence.open(Pool(out))
    for code, kind in enumerate(("exact", "perceptual", "semantic")):
        of_kind = known.kind == code
        apart = int((known.direct[of_kind] == 0).sum())
        cells = re.findall(r"<td>([^<]*)</td>", text.split(f'data-same="{kind}"')[1])[:3]
        assert cells == [str(n) for n in (of_kind.sum(), len(np.unique(known.kept[of_kind])), apart)], kind
    rows = np.flatnonzero(known.kind == 2)
    worst = rows[np.nanargmin(known.measures.cosine[rows])]
    assert known.measures.cosine[worst] < 1 - EPS
    shown = text.split("The most doubtful: semantic")[1].split("</article>")[0]
    pair = shown.split("</li>")[:2]
    assert uids[known.kept[worst]] in pair[0] and uids[known.rows[worst]] in pair[1]
    assert f"cosine {known.measures.cosine[worst]:.4f} by b32" in shown and "Joined through" in shown
    listed = text.split("All ")[1].split("</details>")[0]
    assert all(uids[kept] in listed for kept in known.kept), "every group is in the list"


def test_a_pool_without_duplicates_has_no_such_section(tmp_path, mmfilter):
    out, _ = marked(tmp_path / "o", turned(0, 90, 180), model="b32", k=1)
    text = reported(out, tmp_path, mmfilter)
    assert 'id="samples"' in text and 'id="duplicates"' not in text
