"""Labels of people: read from CSV, given by number, and never with the name of a folder."""

from pathlib import Path

import pytest

from ireu_cli.errors import ConfigError
from ireu_cli.faces.folder import scan_people
from ireu_cli.faces.labels import NOT_STATED, groups_of, read_labels
from ireu_cli.values import People

GOOD = "person,age,gender\nanna,young,f\nbert,old,m\ncarl,old,m\n"


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def make_people(folder: Path, *names: str) -> People:
    for number, name in enumerate(names):
        place = folder / "people" / name
        place.mkdir(parents=True, exist_ok=True)
        (place / "1.jpg").write_bytes(f"{number}".encode())
    return scan_people(folder / "people", "--retain", "everybody")


def test_labels_are_given_by_number(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path, GOOD))
    found = labels.of(make_people(tmp_path, "carl", "anna", "bert"))
    assert found.values == {"age": {0: "young", 1: "old", 2: "old"}, "gender": {0: "f", 1: "m", 2: "m"}}
    assert found.notes == ()


def test_people_keep_their_numbers_when_others_are_left_out(tmp_path: Path) -> None:
    people = make_people(tmp_path, "anna", "bert", "carl").where(lambda photo: photo.person != 0)
    assert read_labels(write(tmp_path, GOOD)).of(people).values["age"] == {1: "old", 2: "old"}


def test_people_beyond_the_folder_are_counted_and_missing_labels_said(tmp_path: Path) -> None:
    text = "person,age,gender\nanna,young,\nzoe,old,f\nyan,old,m\nxia,old,m\n"
    found = read_labels(write(tmp_path, text)).of(make_people(tmp_path, "anna", "bert"))
    assert found.values == {"age": {0: "young", 1: NOT_STATED}, "gender": {0: NOT_STATED, 1: NOT_STATED}}
    assert [note for note in found.notes if "3 people who are not in the folder" in note]
    assert [note for note in found.notes if "1 of the 2 people" in note]


def test_no_folder_name_leaves(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path, "person,age\nanna,old\nzoe,old\n"))
    found = labels.of(make_people(tmp_path, "anna", "bert"))
    for text in (repr(labels), repr(found), repr(groups_of([0, 1], found.values))):
        for name in ("anna", "bert", "zoe"):
            assert name not in text


def test_spreadsheets_and_other_systems_write_csv_in_their_own_way(tmp_path: Path) -> None:
    people = make_people(tmp_path, "zo\u00eb", "anna")
    text = '\ufeffperson , age\r\n"zoe\u0308","x"\r\n\r\n,\r\nanna ,"old, very"\r\n'
    found = read_labels(write(tmp_path, text)).of(people)
    assert found.values == {"age": {0: "old, very", 1: "x"}}
    assert found.notes == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column of labels"),
        ("\n\n", "no column of labels"),
        ("person\nanna\n", "no column of labels"),
        ("person;age\nanna;old\n", "no column of labels"),
        ("person,\nanna,old\n", "without a name"),
        (",age\nanna,old\n", "without a name"),
        ("person,age,age\nanna,old,old\n", "two columns with the same name"),
        ("person,age\nanna,old\nbert\n", "Row 3 of data.labels has 1 cells, and the header has 2"),
        ("person,age\nanna,old,f\n", "Row 2 of data.labels has 3 cells, and the header has 2"),
        ("person,age\n,old\n", "Row 2 of data.labels does not name a person"),
        ("person,age\nanna,old\n\nbert,old\nanna,young\n", "Rows 2 and 5 of data.labels are for the same person"),
        ("person,age\nzo\u00eb,old\nzoe\u0308,young\n", "Rows 2 and 3 of data.labels are for the same person"),
        ("person,age\nj\xf6rg,old\n".encode("latin-1"), "is not UTF-8"),
        (b"person,age\n" + b"x" * (10 * 2**20), "larger than 10 MB"),
        ('person,age\n"anna,old\n', "not CSV"),
        ("person,age\nanna," + "x" * 200_000 + "\n", "not CSV"),
    ],
)
def test_files_that_are_no_labels(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        read_labels(write(tmp_path, text))
    assert error.value.remedy
    for name in ("anna", "bert", "zo"):
        assert name not in str(error.value).replace(str(tmp_path), "")


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_labels(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_labels(tmp_path)


def test_a_header_that_is_a_person(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path, "\ufeffanna,old\nbert,old\ncarl,old\n"))
    assert "anna" not in repr(labels)
    with pytest.raises(ConfigError, match=r"first row of data\.labels is a person") as error:
        labels.of(make_people(tmp_path, "anna", "bert", "carl"))
    assert "anna" not in str(error.value)


def test_a_person_may_be_called_like_the_header(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path, "anna,age\nanna,old\nbert,old\n"))
    assert labels.of(make_people(tmp_path, "anna", "bert")).values == {"age": {0: "old", 1: "old"}}


def test_photos_without_folders_have_no_labels(tmp_path: Path) -> None:
    (tmp_path / "people").mkdir()
    for name in ("anna", "bert"):
        (tmp_path / "people" / f"{name}.jpg").write_bytes(name.encode())
    people = scan_people(tmp_path / "people", "--retain", "everybody")
    with pytest.raises(ConfigError, match="not in folders"):
        read_labels(write(tmp_path, GOOD)).of(people)


def table(column: str, values: list[str]) -> str:
    return f"person,{column}\n" + "".join(f"p{i},{value}\n" for i, value in enumerate(values))


def test_a_column_that_tells_people_apart_is_refused(tmp_path: Path) -> None:
    twenty = [f"v{i}" for i in range(20)] * 2
    assert read_labels(write(tmp_path, table("town", twenty))).columns == ("town",)
    with pytest.raises(ConfigError, match=r"The column town of data\.labels has 21 different values for 41 people"):
        read_labels(write(tmp_path, table("town", [*twenty, "other"])))
    with pytest.raises(ConfigError, match=r"The column alias of data\.labels has 3 different values for 3 people"):
        read_labels(write(tmp_path, table("alias", ["Ann", "Bob", "Cy", ""])))
    assert read_labels(write(tmp_path, table("sex", ["f", "m"]))).columns == ("sex",)


def test_values_are_printable_and_short(tmp_path: Path) -> None:
    values = ['"a\n\x1b[31mb"', '"a\n\x1b[31mb"', "y" * 61, "y" * 61, "z" * 60]
    people = make_people(tmp_path, *(f"p{i}" for i in range(5)))
    found = read_labels(write(tmp_path, table("x" * 99, values))).of(people)
    assert list(found.values) == ["x" * 59 + "…"]
    shown = next(iter(found.values.values()))
    assert shown == {0: "a\\n\\x1b[31mb", 1: "a\\n\\x1b[31mb", 2: "y" * 59 + "…", 3: "y" * 59 + "…", 4: "z" * 60}


def test_values_that_become_one_are_refused(tmp_path: Path) -> None:
    values = ["y" * 60 + "1", "y" * 60 + "2"] * 2
    with pytest.raises(ConfigError, match="have the same first 60 characters"):
        read_labels(write(tmp_path, table("town", values)))


def test_groups_are_positions_among_the_people_given() -> None:
    labels = {"sex": {0: "m", 1: "f", 2: "m", 9: "f"}, "age": {0: "old", 1: "old"}}
    assert groups_of([9, 2, 0], labels) == (
        ("sex = f", (0,)),
        ("sex = m", (1, 2)),
        ("age = not stated", (0, 1)),
        ("age = old", (2,)),
    )
    assert groups_of([], labels) == ()
    assert groups_of([1], {}) == ()
