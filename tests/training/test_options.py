"""Options from YAML files: typed as on the command line, every mistake one line; ranges in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saaa.errors import CheckpointError, OptionInvalid
from training.options import check, load_values, save_config


@dataclass(frozen=True, kw_only=True)
class Every:
    """An option of every type that the jobs have."""

    count: int
    rate: float = 0.5
    limit: float | None = None
    name: str = "x"
    word: str | None = None
    folder: Path = Path("here")
    file: Path | None = None
    flag: bool = False
    kind: Literal["none", "some"] = "none"
    pair: tuple[float, float] | None = None
    many: tuple[str, ...] = ()
    numbers: tuple[int, ...] = (1, 2)


def read(tmp_path: Path, text: str) -> dict[str, Any]:
    file = tmp_path / "o.yaml"
    file.write_text(text)
    return dict(load_values(file, Every))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("rate: 1e-3", 1e-3),  # a string in YAML 1.1
        ("rate: 3", 3.0),
        ("count: '12'", 12),
        ("limit: null", None),
        ("limit: 2", 2.0),
        ("name: none", "none"),
        ("word: ~", None),
        ("folder: a/b", Path("a/b")),
        ("file: null", None),
        ("flag: true", True),
        ("kind: none", "none"),
        ("pair: [0, 0.5]", (0.0, 0.5)),
        ("pair: null", None),
        ("many: [a, b]", ("a", "b")),
        ("many: []", ()),
        ("numbers: [3]", (3,)),
    ],
)
def test_values_are_typed(tmp_path: Path, text: str, value: Any) -> None:
    (found,) = read(tmp_path, text).values()
    assert found == value
    assert type(found) is type(value)


def test_some_options_or_none(tmp_path: Path) -> None:
    assert read(tmp_path, "") == {}
    assert read(tmp_path, "# nothing\n") == {}
    assert set(read(tmp_path, "rate: 1\nname: b")) == {"rate", "name"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("count: many", "count is 'many'; it must be INT."),
        ("count: 1.5", "count is 1.5; it must be INT."),
        ("count: true", "count is True; it must be INT."),
        ("count: null", "count is None; it must be INT."),
        ("count: [1, 2]", "count is [1, 2]; it must be INT."),
        ("rate: {a: 1}", "rate is {'a': 1}; it must be FLOAT."),
        ("limit: true", "limit is True; it must be {None}|FLOAT."),
        ("name: off", "name is False; it must be STR."),  # YAML 1.1 reads a bool
        ("name: null", "name is None; it must be STR."),
        ("folder: null", "folder is None; it must be PATH."),
        ("flag: 1", "flag is 1; it must be {True,False}."),
        ("flag: maybe", "flag is 'maybe'; it must be {True,False}."),
        ("kind: most", "kind is 'most'; it must be {none,some}."),
        ("pair: [0.1]", "pair is [0.1]; it must be {None}|{FLOAT FLOAT}."),
        ("numbers: [1, x]", "numbers is [1, 'x']; it must be [INT [INT ...]]."),
        ("cuont: 1", "the job has no option cuont; its --help lists those it has."),
        ("3: 1", "the job has no option 3; its --help lists those it has."),
    ],
)
def test_mistakes_are_named_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(OptionInvalid) as error:
        read(tmp_path, text)
    assert error.value.message == f"{tmp_path / 'o.yaml'}: {says}"


@pytest.mark.parametrize("text", ["- 1", "7", "count: [", "count: 1\n  rate: 2", "a: !!python/object:os.system {}"])
def test_what_is_no_mapping(tmp_path: Path, text: str) -> None:
    with pytest.raises(OptionInvalid) as error:
        read(tmp_path, text)
    assert str(tmp_path / "o.yaml") in error.value.message
    assert "\n" not in error.value.message


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe4")
    for file in (tmp_path, tmp_path / "none.yaml", tmp_path / "latin.yaml"):
        with pytest.raises(OptionInvalid, match=f"Cannot read the options in {file}"):
            load_values(file, Every)


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1).filter(lambda s: s != "None")
REALS = st.floats(allow_nan=False)


@given(
    count=st.integers(),
    rate=REALS,
    limit=st.none() | REALS,
    name=NAMES,
    word=st.none() | NAMES,
    file=st.none() | NAMES.map(Path),
    flag=st.booleans(),
    kind=st.sampled_from(["none", "some"]),
    pair=st.none() | st.tuples(REALS, REALS),
    many=st.lists(NAMES).map(tuple),
    numbers=st.lists(st.integers()).map(tuple),
)
def test_saved_configuration_reads_back(tmp_path_factory: pytest.TempPathFactory, **values: Any) -> None:
    file = tmp_path_factory.getbasetemp() / "saved.yaml"
    config = Every(**values)
    save_config(config, file)
    assert Every(**load_values(file, Every)) == config


def test_unwritable_configuration(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="Cannot write"):
        save_config(Every(count=1), tmp_path / "none" / "c.yaml")


@pytest.mark.parametrize("value", [None, 0.5, 1, math.nextafter(2, 0)])
def test_inside_the_range(value: float | None) -> None:
    check("x", value, at_least=0.5, below=2)


@pytest.mark.parametrize("value", [0.25, 2, math.inf, math.nan])
def test_outside_the_range(value: float) -> None:
    with pytest.raises(OptionInvalid, match=r"it must be at least 0.5 and below 2: why not\.") as error:
        check("x", value, at_least=0.5, below=2, hint="why not")
    assert error.value.field == "x"
    with pytest.raises(OptionInvalid, match=r"it must be above 3 and at most 4\."):
        check("x", value, above=3, at_most=4)
