"""Rows come in every format as they were written, and what is wrong with a file is said in one line."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from rlvr.config import RecipeError
from rlvr.data.rows import read_rows

ROWS = [{"problem": "1+1?", "answer": "2"}, {"problem": "π", "answer": 3.14, "level": 5}]


def read(path) -> list[dict]:
    return read_rows(str(path), "train", "data.train")


def write_jsonl(path, rows=ROWS, **options):
    path.write_text("".join(json.dumps(row, **options) + "\n" for row in rows), encoding="utf-8")
    return path


def test_jsonl_json_and_parquet_give_the_same_rows(tmp_path):
    rows = [row | {"level": row.get("level", 1), "answer": str(row["answer"])} for row in ROWS]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    write_jsonl(tmp_path / "a.jsonl", rows)
    for name in ("a.json", "a.parquet", "a.jsonl"):
        assert read(tmp_path / name) == rows


def test_blank_lines_windows_line_ends_and_a_byte_order_mark_are_no_rows(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}')
    assert read(path) == [{"a": 1}, {"a": 2}]


def test_line_separators_inside_of_a_string_do_not_end_the_row(tmp_path):
    rows = [{"problem": "one\u2028two\x85three"}]
    assert read(write_jsonl(tmp_path / "a.jsonl", rows, ensure_ascii=False)) == rows


def test_the_line_that_is_no_json_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n{"a": \n')
    with pytest.raises(RecipeError, match=r"^data\.train=.*a\.jsonl: line 3 is not JSON: "):
        read(path)


def test_a_line_that_is_no_object_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n[1, 2]\n')
    with pytest.raises(RecipeError, match=r"line 2 is a list, not an object"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", b'{"a": 1}', "expected a list of objects"),
        ("a.json", b"[1]", "expected a list of objects"),
        ("a.json", b"[{]", "not JSON"),
        ("a.json", b"[]", "the data set is empty"),
        ("a.json", b"[" * 100_000, "not JSON"),
        ("a.jsonl", b'{"a": ' * 100_000, "line 1 is not JSON"),
        ("a.jsonl", b'{"a": 1}\n{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "row 1 is nested more than 100 deep"),
        ("a.jsonl", b"", "the data set is empty"),
        ("a.jsonl", b"\n\n", "the data set is empty"),
        ("a.jsonl", b'{"a": "\xff"}', "not UTF-8"),
        ("a.json", b'{"a": "\xff"}', "not UTF-8"),
        ("a.parquet", b"not that", "not a parquet file"),
    ],
)
def test_a_file_that_holds_no_rows_is_refused_in_one_line(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecipeError, match=said) as refused:
        read(tmp_path / name)
    assert str(refused.value).startswith(f"data.train={tmp_path / name}: ")
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_told_with_the_folder_that_was_looked_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=rf"data\.train=a\.jsonl: no such file \(looked in {tmp_path}\)"):
        read("a.jsonl")


def test_a_pattern_is_all_the_files_that_it_fits_by_name(tmp_path):
    for name in ("part-10", "part-02", "other"):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"problem": name}])
    assert read(tmp_path / "part-*.jsonl") == [{"problem": "part-02"}, {"problem": "part-10"}]
    assert len(read(tmp_path / "**" / "*.jsonl")) == 3
    write_jsonl(tmp_path / "part-[1].jsonl", [{"problem": "its own name"}])
    assert read(tmp_path / "part-[1].jsonl") == [{"problem": "its own name"}]


def test_a_pattern_that_no_file_fits_and_a_damaged_one_among_many_are_named(tmp_path):
    with pytest.raises(RecipeError, match=r"data\.train=.*part-\*\.jsonl: no file fits the pattern \(looked from "):
        read(tmp_path / "part-*.jsonl")
    write_jsonl(tmp_path / "part-1.jsonl")
    (tmp_path / "part-2.jsonl").write_text("{")
    with pytest.raises(RecipeError, match=r"part-2\.jsonl: line 1 is not JSON"):
        read(tmp_path / "part-*.jsonl")


def test_a_damaged_parquet_file_is_one_clear_line(tmp_path):
    """Its ends are right, a page in the middle is not."""
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"problem": "a"}]), path := tmp_path / "a.parquet")
    path.write_bytes(path.read_bytes()[:10] + b"\xff" * 30 + path.read_bytes()[40:])
    said = r"^data\.train=.*a\.parquet: not a parquet file, or a damaged one: "
    with pytest.raises(RecipeError, match=said) as refused:
        read(path)
    assert "\n" not in str(refused.value)


@pytest.fixture
def data_set(tmp_path, monkeypatch):
    """A folder that `datasets` reads as it reads a hub name, with two splits."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "set"
    folder.mkdir()
    write_jsonl(folder / "train.jsonl", [{"problem": "a"}, {"problem": "b"}])
    write_jsonl(folder / "test.jsonl", [{"problem": "c"}])
    return folder


def test_a_data_set_is_read_by_name_and_split(data_set):
    assert read(data_set) == [{"problem": "a"}, {"problem": "b"}]
    assert read(f"{data_set}:test") == [{"problem": "c"}]


def test_a_data_set_with_configurations_is_read_by_that_too(data_set):
    files = {"main": "train", "hard": "test"}
    kinds = "".join(f"- config_name: {kind}\n  data_files: {file}.jsonl\n" for kind, file in files.items())
    (data_set / "README.md").write_text(f"---\nconfigs:\n{kinds}---\n")
    assert read(f"{data_set}:main:train") == [{"problem": "a"}, {"problem": "b"}]
    assert read(f"{data_set}:hard:train") == [{"problem": "c"}]
    with pytest.raises(RecipeError, match="missing"):
        read(data_set)
    with pytest.raises(RecipeError, match="name:configuration:split"):
        read(f"{data_set}:main:train:more")


def test_a_data_set_may_lie_in_the_home_folder(data_set, monkeypatch):
    monkeypatch.setenv("HOME", str(data_set.parent))
    assert read("~/set:test") == [{"problem": "c"}]


@pytest.mark.parametrize("name", ["rows.csv", "rows", "rows.parquet.bak"])
def test_a_file_of_another_kind_is_refused_at_once(tmp_path, monkeypatch, name):
    monkeypatch.setattr("rlvr.data.rows._from_hub", None)
    (tmp_path / name).write_text("problem,answer\n1+1,2\n")
    with pytest.raises(RecipeError, match=r"a (\.csv|\.bak|bare) file; what can be read is \.jsonl, \.json, \.parquet"):
        read(tmp_path / name)
    with pytest.raises(RecipeError, match=r"^data\.train=nowhere\.csv: a \.csv file"):
        read("nowhere.csv")


@pytest.mark.parametrize("split", [False, True])
def test_a_folder_of_save_to_disk_is_told_from_a_data_set(tmp_path, split):
    import datasets

    rows = datasets.Dataset.from_list([{"problem": "a"}])
    (datasets.DatasetDict({"train": rows}) if split else rows).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(RecipeError, match=r"saved: a folder of save_to_disk; write it with to_parquet"):
        read(tmp_path / "saved")


def test_a_split_that_is_not_there_is_one_clear_line(data_set):
    with pytest.raises(RecipeError, match=r"^data\.train=.*:tset: neither .* nor a data set: .*tset"):
        read(f"{data_set}:tset")


@pytest.mark.parametrize("name", ["", " ", ":", ":test"])
def test_an_empty_name_is_one_clear_line(name):
    with pytest.raises(RecipeError, match=r"^data\.train='.*' names no data set$"):
        read_rows(name, "train", "data.train")


@pytest.mark.parametrize(
    ("name", "content"), [("train.jsonl", '{"a": \n'), ("set.py", "import datasets\n")], ids=["damaged", "script"]
)
def test_a_data_set_that_cannot_be_read_is_one_clear_line(data_set, name, content):
    for path in data_set.iterdir():
        path.unlink()
    (data_set / name).write_text(content)
    with pytest.raises(RecipeError, match=r"^data\.train=.*: neither .* nor a data set: \S") as refused:
        read(data_set)
    assert "\n" not in str(refused.value)


def test_a_data_set_that_is_not_there_is_one_clear_line(data_set):
    with pytest.raises(RecipeError, match=r"^data\.train=\./no-such-folder: neither .* nor a data set: "):
        read("./no-such-folder")
