"""Lists of urls that are text: quotes that are not closed, other encodings, columns that stand twice, types."""

import gzip

import pyarrow as pa
import pyarrow.parquet
import pytest

from mmfilter.errors import DataError, UsageError
from mmfilter.url_lists import Columns, kept_types, plan_lists, read_piece, rows

U = "http://a/"


def read(path, content, columns=Columns()):
    """The whole list as one table."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return pa.concat_tables(rows(str(path), columns))


def test_a_tsv_has_no_quotes(tmp_path):
    text = f'url\ttext\n{U}1\t"an open quote\r\n\n{U}2\t12" of, \'rain\'\n{U}3\t"all"\n'
    found = read(tmp_path / "a.tsv", text)
    assert found["url"].to_pylist() == [f"{U}{i}" for i in (1, 2, 3)]
    assert found["caption"].to_pylist() == ['"an open quote', "12\" of, 'rain'", '"all"']
    with pytest.raises(DataError, match="a.tsv: line 2: 2 columns are named in the first line, and 3 values"):
        read(tmp_path / "a.tsv", f"url\ttext\n{U}1\ta\tb\n")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f'url,text\n{U}1,a\n{U}2,"an open quote\n{U}3,c\n', "row that begins on line 3 .*unexpected end"),
        (f'url,text\n{U}1,"an open quote\n{U}2,c\n{U}3,"d"\n', "row that begins on line 2 .*expected after"),
        (f'url,text\n{U}1,"open\n{U}2,c\n{U}3,12"\n', "line 2: 3 lines are one row"),
        (f'text,url\n"open,{U}1\n12",{U}2\n', "line 2: 2 lines are one row"),
        (f'text,url\n"open, and more,{U}1\nb,{U}2\n12",{U}3\n', "line 2: 3 lines are one row"),
        (f'n,url,text\n1,{U}1,"open\n2,"{U}2","12"\n', "begins on line 2"),
        (f'url,text\n{U}1,"{"x" * (1 << 19)}\n{"y" * (1 << 19)}\n{U}2,c\n', "begins on line 2 .*field limit"),
        (f"url,text\n{U}1,a,b\n", "line 2: 2 columns are named in the first line, and 3 values"),
        ("", "is empty"),
    ],
)
def test_an_open_quote_in_a_csv_swallows_no_row(tmp_path, text, why):
    with pytest.raises(DataError, match=why):
        read(tmp_path / "a.csv", text)


def test_line_feeds_in_the_values_of_a_csv(tmp_path):
    text = f'url,text,page\r\n\r\n{U}1,"one ""and""\r\n, two\n\nthree",{U}p\r\n{U}2,a "b" c,\r\n'
    found = read(tmp_path / "a.csv", text)
    assert found["url"].to_pylist() == [f"{U}1", f"{U}2"]
    assert found["caption"].to_pylist() == ['one "and"\r\n, two\n\nthree', 'a "b" c']


@pytest.mark.parametrize("ending", ["txt", "csv", "tsv", "txt.gz", "csv.gz"])
def test_other_encodings(tmp_path, ending):
    between = "\t" if ending == "tsv" else ","
    header = "" if ending.startswith("txt") else f"url{between}text\n"
    tail = "" if ending.startswith("txt") else f"{between}a"
    text, pack = f"{header}{U}1{tail}\n{U}2{tail}\n", gzip.compress if ending.endswith("gz") else bytes
    assert read(tmp_path / f"a.{ending}", pack(text.encode("utf-8-sig")))["url"].to_pylist() == [f"{U}1", f"{U}2"]
    for name in ("utf-16", "utf-16-le"):
        with pytest.raises(DataError, match=f"a.{ending}: .*(NUL|UTF-8)"):
            read(tmp_path / f"a.{ending}", pack(text.encode(name)))


def test_a_column_that_stands_twice(tmp_path):
    with pytest.raises(UsageError, match="2 columns are called 'text'"):
        read(tmp_path / "a.csv", f"url,text,text\n{U}1,a,b\n")
    with pytest.raises(UsageError, match="3 columns are called 'uid'"):
        read(tmp_path / "a.csv", f"url,text,uid,uid,uid\n{U}1,a,,,\n")
    twice = pa.Table.from_arrays([pa.array([U]), pa.array([U]), pa.array(["a"])], names=["url", "url", "text"])
    pa.parquet.write_table(twice, tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="2 columns are called 'url'"):
        list(rows(str(tmp_path / "a.parquet"), Columns()))
    assert read(tmp_path / "a.csv", f"url,text,n,n\n{U}1,a,1,2\n")["caption"].to_pylist() == ["a"]


def test_a_type_is_that_of_all_values(tmp_path, monkeypatch):
    monkeypatch.setattr("mmfilter.text_lists.BATCH", 2)
    columns = Columns(keep=("whole", "half", "word", "yes", "none", "far"))
    lines = [f"{U}{i},t,{i},{i},{i},TRUE,NA,1" for i in range(4)] + [f"{U}4,t,,0.5,cc,false,,inf"]
    (tmp_path / "a.csv").write_text("\n".join([f"url,text,{','.join(columns.keep)}", *lines]))
    types = kept_types([str(tmp_path / "a.csv")], columns)
    assert list(map(str, types.values())) == ["int64", "double", "string", "bool", "null", "double"]
    assert plan_lists(str(tmp_path / "out"), [str(tmp_path / "a.csv")], columns, 10, {}) == 5
    piece = read_piece(str(tmp_path / "out"), 0)
    assert piece["whole"].to_pylist() == [0, 1, 2, 3, None] and piece["half"].to_pylist() == [0, 1, 2, 3, 0.5]
    assert piece["word"].to_pylist() == ["0", "1", "2", "3", "cc"] and piece["yes"].to_pylist() == [True] * 4 + [False]
    assert piece["none"].to_pylist() == [None] * 5 and piece["far"].to_pylist() == [1, 1, 1, 1, None]


def test_the_command_says_it(tmp_path, mmfilter):
    pytest.importorskip("img2dataset", reason="img2dataset is not installed: pip install 'mmfilter[download]'")
    cases = {"open": (f'url,text\n{U}1,"a\n{U}2,b\n', 1), "twice": (f"url,text,text\n{U}1,a,b\n", 2)}
    for name, (text, exit_code) in cases.items():
        (tmp_path / f"{name}.csv").write_text(text)
        code, out, err = mmfilter("download", tmp_path / f"{name}.csv", "--out", tmp_path / name, "--local")
        assert (code, out) == (exit_code, "") and f"{name}.csv: " in err and "Traceback" not in err
        assert not list((tmp_path / name).glob("*.tar"))
