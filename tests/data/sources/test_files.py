"""Files of every format: good rows come through, each bad one has a reason, user mistakes are refused by name."""

import csv
import gzip
import json
import math
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysl.data.sources import BadRows, Files, base, files, readers
from raysl.data.sources.readers import Part, tables
from raysl.data.sources.readers.columns import read_columns
from raysl.errors import DataError
from raysl.schema import RAW_DOCUMENT


def read(path: Path | str, partition_mb: float = 1.0, **config: object) -> tuple[list[dict[str, str]], dict[str, int]]:
    source = Files(Files.Config(path=str(path), **config))
    bad, rows = BadRows(), []
    for partition in source.partitions(partition_mb):
        for table in source.read(partition, bad):
            assert table.schema.equals(RAW_DOCUMENT)
            rows += table.to_pylist()
    return rows, bad.counts()


def write_all_formats(folder: Path) -> None:
    rows = [{"text": f'text {n}, with "quotes"\nand lines', "topic": f"t{n}"} for n in range(3)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "a.jsonl").write_text(lines)
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    with pa.output_stream(str(folder / "c.jsonl.zst"), compression="zstd") as file:
        file.write(lines.encode())
    with open(folder / "d.csv", "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["topic", "text"])
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), folder / "e.parquet", row_group_size=2)


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    write_all_formats(tmp_path)
    rows, bad = read(tmp_path, label_column="topic")
    assert bad == {}
    assert Counter((row["text"], row["label"]) for row in rows) == {
        (f"text {n}, with \"quotes\"\nand lines", f"t{n}"): 5 for n in range(3)
    }  # fmt: skip
    assert len({row["id"] for row in rows}) == len(rows)
    assert rows[-1]["id"] == "e.parquet:2"


def test_a_suffix_may_be_in_capitals(tmp_path: Path) -> None:
    for folder in ("small", "Large"):
        (tmp_path / folder).mkdir()
        write_all_formats(tmp_path / folder)
    for path in (tmp_path / "Large").iterdir():
        path.rename(path.with_name(path.name.upper()))
    small, large = read(tmp_path / "small", 0.0001), read(tmp_path / "Large", 0.0001)
    assert (small[1], large[1]) == ({}, {})
    assert [row["id"].upper() for row in small[0]] == [row["id"] for row in large[0]]
    assert [row["text"] for row in small[0]] == [row["text"] for row in large[0]]


def test_lines_of_json_may_have_another_suffix_where_the_path_has_it_too(tmp_path: Path) -> None:
    """As C4 and others are published; in a folder such files are left alone, as they may say something about the data."""
    rows = "".join(json.dumps({"text": f"text {n}"}) + "\n" for n in range(50))
    (tmp_path / "a.jsonl").write_text('{"text": "row"}')
    (tmp_path / "b.json").write_text(rows)
    (tmp_path / "c.JSON.GZ").write_bytes(gzip.compress(rows.encode()))
    (tmp_path / "d.ndjson").write_text(rows)
    assert [row["text"] for row in read(tmp_path)[0]] == ["row"]
    assert [row["text"] for row in read(f"{tmp_path}/*")[0]] == ["row"]
    for path, count in (("b.json", 50), ("*.json", 50), ("*.JSON.GZ", 50), ("*.ndjson", 50)):
        found, bad = read(f"{tmp_path}/{path}", partition_mb=0.0001)
        assert (len(found), len({row["text"] for row in found}), bad) == (count, 50, {})
    with pytest.raises(DataError, match="holds nothing that can be read"):
        read(f"{tmp_path}/*.xml")


def test_a_title_is_the_first_line_of_its_text(tmp_path: Path) -> None:
    """The line is blank where there is none."""
    rows = [{"text": "body", "name": " Of\n  lines "}, {"text": "a body", "name": None}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "b.csv").write_text("name,text\nOf lines,body\n")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    (tmp_path / "d.txt").write_text("Of\nlines")
    read_rows, bad = read(tmp_path, title_column="name")
    titled, untitled = "Of lines\nbody", "\na body"
    assert [row["text"] for row in read_rows] == [titled, untitled, titled, titled, untitled, "\nOf\nlines"]
    assert bad == {}
    with pytest.raises(DataError, match=r"has no column 'titel'.*prepare\.source\.title_column"):
        read(tmp_path, title_column="titel")
    assert "title_column" not in Files.Config(path="x").model_dump()
    assert Files.Config(path="x", title_column="name").model_dump()["title_column"] == "name"


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_blank_cells_are_missing_and_whole_numbers_are_written_alike(tmp_path: Path, kind: str) -> None:
    """A label of "" would be a class of its own, and often the largest."""
    labels, path = [1.0, None, math.nan], tmp_path / f"a.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps({"text": "x", "l": label, "name": "  "}) + "\n" for label in [1, *labels[1:]]))
    elif kind == "csv":
        path.write_text("text,l,name\nx,1,\nx,,\nx,  ,\n")
    else:
        pq.write_table(pa.table({"text": ["x"] * 3, "l": labels, "name": ["", " ", None]}), path)
    rows, bad = read(path, label_column="l", title_column="name", id_column="name")
    assert [(row["text"], row["label"]) for row in rows] == [("\nx", "1"), ("\nx", None), ("\nx", None)]
    assert bad == {}
    assert len({row["id"] for row in rows}) == 3
    assert next(row["id"] for row in read(path, id_column="l")[0]) == "1"


def test_long_rows_end_a_table_before_arrow_cannot_hold_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "CHARS_PER_TABLE", 10)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": "x" * n}) + "\n" for n in (6, 6, 12, 3, 3)))
    source = Files(Files.Config(path=str(tmp_path)))
    tables = source.read(source.partitions(1.0)[0], BadRows())
    assert [[len(text) for text in table["text"].to_pylist()] for table in tables] == [[6, 6], [12], [3, 3]]


def test_a_key_that_no_line_has_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels would be none, silently: a line of .jsonl may lack any key."""
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n' * 99 + '{"text": "x", "topic": "t"}\n{"other": 1}\n')
    assert read(tmp_path, label_column="topic")[1] == {"missing_text": 1}
    assert capsys.readouterr().err == ""
    read(tmp_path, label_column="topics")
    told = f"The first 100 rows of {tmp_path}/a.jsonl have no 'topics' (source.label_column). They have: text, topic.\n"
    assert capsys.readouterr().err == told


def test_files_that_fill_the_memory_of_a_task_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_HELD", 2_000)
    monkeypatch.setattr(readers, "check_installed", lambda formats: None)
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n' * 500)
    for name, size in (("b.jsonl.gz", 1_000), ("c.jsonl.gz", 1_500), ("d.warc.gz", 9_000), ("e.jsonl.gz", 10)):
        (tmp_path / name).write_bytes(gzip.compress(os.urandom(size)))
    Files(Files.Config(path=str(tmp_path))).partitions(0.001)
    told = f"One task reads about 0.0 GB of {tmp_path}/c.jsonl.gz and holds it in memory (2 such tasks): only plain .jsonl"
    said = capsys.readouterr().err.splitlines()
    assert [line[: len(told)] for line in said] == [told]


def test_bytes_of_a_table_are_text(tmp_path: Path) -> None:
    """As databases write text into .parquet that do not mark it as such."""
    columns = {
        "text": [b"one", "zw\u00f6".encode(), b"\xff"],
        "label": [b"cat", b"dog", b"cat"],
        "name": [b"a", b"\xff", b"c"],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    rows, bad = read(tmp_path, label_column="label", id_column="name")
    assert [tuple(row.values()) for row in rows] == [("a", "one", "cat"), ("a.parquet:1", "zw\u00f6", "dog")]
    assert bad == {"invalid_utf8": 1}


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@pytest.mark.parametrize("mark", ["utf-16-le", "utf-16-be"])
def test_a_csv_may_be_in_utf16(tmp_path: Path, name: str, mark: str) -> None:
    """As databases and spreadsheets export it."""
    data = '\ufefftext,l\r\n"one\nand \u010a",a\r\nhalf \ud83d,b\r\nzw\u00f6,c\r\n'.encode(mark, "surrogatepass")
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    rows, bad = read(tmp_path, label_column="l")
    assert [(row["text"], row["label"]) for row in rows] == [("one\nand \u010a", "a"), ("zw\u00f6", "c")]
    assert bad == {"invalid_utf8": 1}
    with pytest.raises(DataError, match=r"has no column 'label'\. Its columns: text, l\."):
        read(tmp_path, label_column="label")


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_blanks_around_a_label_make_no_other_class(tmp_path: Path, kind: str) -> None:
    labels, path = ["cat", "cat ", "\tcat"], tmp_path / f"a.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps({"text": "x", "l": label}) + "\n" for label in labels))
    elif kind == "csv":
        path.write_text("text,l\n" + "".join(f"x,{label}\n" for label in labels))
    else:
        pq.write_table(pa.table({"text": ["x"] * 3, "l": labels}), path)
    assert [row["label"] for row in read(path, label_column="l")[0]] == ["cat"] * 3


def test_a_glob_reads_what_it_names_and_ids_do_not_move_with_the_folder(tmp_path: Path) -> None:
    write_all_formats(tmp_path)
    assert [row["id"] for row in read(f"{tmp_path}/*.jsonl")[0]] == ["a.jsonl:0", "a.jsonl:62", "a.jsonl:124"]
    (tmp_path / "moved").mkdir()
    (tmp_path / "a.jsonl").rename(tmp_path / "moved" / "a.jsonl")
    assert read(tmp_path / "moved" / "a.jsonl")[0][0]["id"] == "a.jsonl:0"


def test_partitions_divide_a_long_file_without_losing_a_line(tmp_path: Path) -> None:
    texts = [f"text {n} " + "é" * (n % 50) for n in range(500)]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts))
    whole, _ = read(tmp_path / "a.jsonl")
    for partition_mb in (0.00005, 0.001, 0.0123):
        assert read(tmp_path / "a.jsonl", partition_mb)[0] == whole
    assert [row["text"] for row in whole] == texts


@pytest.mark.parametrize(
    ("name", "content", "good", "bad"),
    [
        ("a.txt", b"\xff\xfe" + "wide".encode("utf-16-le"), ["wide"], {}),
        ("a.txt", b"\xef\xbb\xbfwith a mark", ["with a mark"], {}),
        ("a.txt", b"caf\xe9", [], {"invalid_utf8": 1}),
        ("a.txt.gz", b"no gzip", [], {"unreadable_file": 1}),
        ("a.txt.gz", gzip.compress(b"one ", mtime=0) + gzip.compress(b"two", mtime=0), ["one two"], {}),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 90_000, mtime=0)[:-60], ["x"], {"unreadable_file": 1}),
        ("a.jsonl", b'{"text": "x"}\n{"text": \n\n[1]\n"y"\n{"text": "z"}', ["x", "z"], {"broken_line": 3}),
        ("a.jsonl", b'{"text": "\xff"}\n{"text": "x"}', ["x"], {"invalid_utf8": 1}),
        ("a.jsonl", b'{"text": "\\ud800"}\n{"text": "x"}', ["x"], {"lone_surrogate": 1}),
        ("a.jsonl", b'{"txt": "x"}\n{"text": null}\n{"text": 3}\n{"text": " "}\n{"text": "y"}', ["y"], {"missing_text": 4}),
        ("a.csv", b"text,b\nx,1\ny\n,2\nz\xff,3\nw,4", ["x", "w"], {"broken_line": 1, "missing_text": 1, "invalid_utf8": 1}),
        ("a.csv", b'text,b\nx,1\n"y,2\n', ["x"], {"broken_line": 1}),
        ("a.csv", b'text,b\nx,1\n"bad"oops,2\ny,3\n"z\n",4\n', ["x", "y", "z\n"], {"broken_line": 1}),
        ("a.parquet", b"PAR1 cut off", [], {"unreadable_file": 1}),
    ],
)  # fmt: skip
def test_bad_rows_are_counted_and_the_rest_goes_through(
    tmp_path: Path, name: str, content: bytes, good: list[str], bad: dict[str, int]
) -> None:
    (tmp_path / name).write_bytes(content)
    rows, counts = read(tmp_path / name)
    assert counts == bad
    assert list(dict.fromkeys(row["text"] for row in rows)) == good


ROWS = [f"{n},text {n}\n" for n in range(1000)]
QUOTED = ['600,"one, ""two"""\n', '600,"one\ntwo\n\nthree"\n']
"""A row with quotes, and one of several lines."""


def read_csv(path: Path, lines: list[str]) -> tuple[list[str], dict[str, int]]:
    path.write_text("n,text\n" + "".join(lines))
    rows, bad = read(path, id_column="n")
    return [f"{row['id']}: {row['text']}" for row in rows], bad


@pytest.mark.parametrize("place", [0, 10, 998, 999])
@pytest.mark.parametrize("later", [ROWS[600], *QUOTED])
@pytest.mark.parametrize("stray", ['"{n},text\n', '{n},"text\n', '{n},"te"xt\n'])
def test_a_stray_quote_in_a_csv_costs_its_own_line(tmp_path: Path, place: int, later: str, stray: str) -> None:
    lines = [*ROWS[:600], later, *ROWS[601:]]
    whole, bad = read_csv(tmp_path / "a.csv", lines)
    assert (len(whole), bad) == (1000, {})
    lines[place] = stray.format(n=place)
    assert read_csv(tmp_path / "a.csv", lines) == ([row for n, row in enumerate(whole) if n != place], {"broken_line": 1})


def test_stray_quotes_in_many_lines_of_a_csv_cost_these(tmp_path: Path) -> None:
    lines = [f'{n},"text {n}\n' if n % 3 == 0 else row for n, row in enumerate(ROWS)]
    texts, bad = read_csv(tmp_path / "a.csv", lines)
    assert texts == [f"{n}: text {n}" for n in range(1000) if n % 3]
    assert bad == {"broken_line": 334}


def test_ids_of_csv_rows_are_their_lines_also_below_a_stray_quote(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text\n"a\nb\nc\n"d\ne"\nf\n')
    rows, _ = read(tmp_path / "a.csv")
    assert [(row["id"], row["text"]) for row in rows] == [
        ("a.csv:3", "b"),
        ("a.csv:4", "c"),
        ("a.csv:6", "d\ne"),
        ("a.csv:7", "f"),
    ]


@pytest.mark.parametrize("limit", [10_000_000, 1000])
def test_no_line_of_a_csv_is_read_a_third_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Each of these lines opens a quote, outside as well as inside of one: every row goes on to the end of the file."""
    monkeypatch.setattr(tables, "MAX_ROW_CHARS", limit)
    given, next_line = list[str](), tables._Lines.__next__
    monkeypatch.setattr(tables._Lines, "__next__", lambda lines: (given.append(line := next_line(lines)), line)[1])
    texts, bad = read_csv(tmp_path / "a.csv", ['0,"stray\n', *['1","b\n'] * 3000, "2,c\n"])
    assert (texts, bad) == (["2: c"], {"broken_line": 3001})
    assert len(given) < 2 * 3003


def test_a_row_of_a_csv_that_goes_on_for_too_long_is_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_ROW_CHARS", 50)
    lines = ["0,a\n", '1,"b\n', *["2,c\n"] * 40, '3,"d\n\ne"\n']
    assert read_csv(tmp_path / "a.csv", lines) == (["0: a", *["2: c"] * 40, "3: d\n\ne"], {"broken_line": 1})


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_blank_line_parts_paragraphs_however_lines_end(tmp_path: Path, end: str) -> None:
    (tmp_path / "a.txt").write_text(f"a{end}b{end}{end}c{end} {end}{end}d", newline="")
    rows, _ = read(tmp_path / "a.txt", txt_unit="paragraph")
    assert [(row["id"], row["text"].split()) for row in rows] == [
        ("a.txt:0", ["a", "b"]), ("a.txt:1", ["c"]), ("a.txt:2", ["d"]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("unit", "texts"), [("line", ["a", "b", "c"]), ("paragraph", ["a\nb", "c"]), ("file", ["a\nb\n\nc\n"])]
)
def test_a_text_file_is_one_document_or_many(tmp_path: Path, unit: str, texts: list[str]) -> None:
    (tmp_path / "a.txt").write_text("a\nb\n\nc\n")
    assert [row["text"].rstrip("\n") for row in read(tmp_path, txt_unit=unit)[0]] == [text.rstrip("\n") for text in texts]


WIDE = "eins\r\n\nĊ zwei 😀\n\ud83d\nlast"  # the bytes of Ċ in UTF-16 begin with a line end of UTF-8


@pytest.mark.parametrize("mark", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.zst"])
def test_lines_of_utf16_are_those_of_its_text(tmp_path: Path, mark: str, name: str) -> None:
    data = ("\ufeff" + WIDE).encode(mark, "surrogatepass")
    pack = {".gz": gzip.compress, ".zst": lambda data: pa.compress(data, "zstd", asbytes=True)}.get(name[5:], bytes)
    (tmp_path / name).write_bytes(pack(data))
    rows, bad = read(tmp_path, txt_unit="line")
    lines = {f"{name}:1": "eins\r\n", f"{name}:3": "Ċ zwei 😀\n", f"{name}:5": "last"}
    assert ({row["id"]: row["text"] for row in rows}, bad) == (lines, {"lone_surrogate": 1})
    (tmp_path / name).write_bytes(pack(data[:-1]))
    rows, bad = read(tmp_path, txt_unit="line")
    assert ([row["id"] for row in rows], bad) == (list(lines)[:2], {"lone_surrogate": 1, "invalid_utf8": 1})


def test_a_quoted_header_behind_a_byte_order_mark_keeps_its_first_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('"label","text"\n"sun","x"\n', encoding="utf-8-sig")
    rows, bad = read(tmp_path, label_column="label")
    assert (bad, [(row["text"], row["label"]) for row in rows]) == ({}, [("x", "sun")])


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
def test_an_empty_csv_beside_good_ones_has_no_rows(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    (tmp_path / "b.csv").write_text("\ntext\nx\n")
    rows, bad = read(tmp_path)
    assert (bad, [(row["id"], row["text"]) for row in rows]) == ({}, [("b.csv:3", "x")])
    assert list(read_columns(Part(str(tmp_path / "a.csv"), "a.csv"), ["text"], BadRows())) == []


def test_wrong_type_in_parquet_is_missing_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "a.parquet")
    assert read(tmp_path) == ([], {"missing_text": 2})


def test_mistakes_of_the_config_name_the_path_and_the_fix(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist. Give prepare.source.path"):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds nothing that can be read. Allowed: .txt, .jsonl"):
        read(tmp_path)
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(DataError, match=r"a.pdf holds nothing that can be read"):
        read(tmp_path / "a.pdf")
    (tmp_path / "a.csv").write_text("body,topic\nx,y\n")
    with pytest.raises(DataError, match=r"a.csv has no column 'text'. Its columns: body, topic"):
        read(tmp_path / "a.csv")


def test_a_file_whose_name_is_no_utf8_is_read_as_any_other(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    (folder / "a.txt").write_text("x")
    pq.write_table(pa.table({"text": ["y"]}), pa.OSFile(bytes(folder / "b.parquet"), "wb"))
    rows, bad = read(tmp_path)
    assert (bad, [(row["id"], row["text"]) for row in rows]) == ({}, [("caf?/a.txt", "x"), ("caf?/b.parquet:0", "y")])


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    source = Files(Files.Config(path=str(tmp_path)))
    before = source.fingerprint()
    assert source.fingerprint() == before
    (tmp_path / "a.txt").write_text("xy")
    assert source.fingerprint() != before
