"""Edits of models.yaml by command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from saaa.errors import ArchiveError, ModelNotFound, OptionInvalid, SaaaError, StartFailed
from serving.commands import manage
from serving.commands.cli import main
from serving.commands.manage import load, promote, rollback, unload
from serving.models import models_file
from serving.models.models_file import FILE_NAME
from serving.models.store import find_archives
from tests.serving.small_archives import write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, version in (("m", "1"), ("m", "2"), ("other", "1")):
        write(tmp_path, name, version)
    return tmp_path


def served(folder: Path) -> dict[str, tuple[str, str, float, list[str]]]:
    content = models_file.read(folder)
    assert content is not None
    return {n: (e.default, e.canary, e.share, list(e.versions)) for n, e in content.models.items()}


def test_the_first_edit_writes_down_what_is_served_and_loads_beside_it(folder: Path) -> None:
    write(folder, "m", "10")
    load(folder, Path("m-10.mar"))
    assert served(folder) == {"m": ("2", "", 0.0, ["1", "2", "10"]), "other": ("1", "", 0.0, ["1"])}
    assert {(i.name, i.version) for _, i in find_archives(folder)} == {("m", v) for v in ("1", "2", "10")} | {
        ("other", "1")
    }


def test_check_names_every_archive_or_the_one_that_is_wrong(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "check", "--models", str(folder)]) == 0
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == [
        "m-1.mar: m 1",
        "m-2.mar: m 2",
        "other-1.mar: other 1",
    ]
    load(folder, Path("m-2.mar"))
    write(folder, "m", "1", weight=1.0)
    assert main(["models", "check", "--models", str(folder)]) == 2
    assert "m-1.mar" in capsys.readouterr().err


def test_a_way_through_all_edits_and_back_again(folder: Path) -> None:
    write(folder, "m", "3")
    steps: list[tuple[Callable[[], object], tuple[str, str, float, list[str]] | None]] = [
        (lambda: load(folder, folder / "m-3.mar"), ("2", "", 0.0, ["1", "2", "3"])),
        (lambda: promote(folder, "m", "3", 0.1), ("2", "3", 0.1, ["1", "2", "3"])),
        (lambda: promote(folder, "m", "3", 0.5), ("2", "3", 0.5, ["1", "2", "3"])),
        (lambda: promote(folder, "m", "3"), ("3", "", 0.0, ["1", "2", "3"])),
        (lambda: unload(folder, "m", "1"), ("3", "", 0.0, ["2", "3"])),
        (lambda: promote(folder, "m", "2", 0.2), ("3", "2", 0.2, ["2", "3"])),
        (lambda: unload(folder, "m", "2"), ("3", "", 0.0, ["3"])),
        (lambda: unload(folder, "m", "3"), None),
    ]
    seen = []
    for step, wanted in steps:
        step()
        assert served(folder).get("m") == wanted
        seen.append(wanted)
    promote(folder, "other", "1")  # no change, and no business of m
    for wanted in reversed(seen[:-1]):
        rollback(folder, "m")
        assert served(folder)["m"] == wanted
    rollback(folder, "m")
    assert served(folder)["m"] == ("2", "", 0.0, ["1", "2"])
    with pytest.raises(ModelNotFound, match="nothing to go back to"):
        rollback(folder, "m")


def test_what_cannot_be_done_changes_nothing(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    load(folder, Path("m-1.mar"), pinned=True)
    before = (folder / FILE_NAME).read_text()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write(elsewhere, "m", "4")
    write(folder, "m", "1", weight=1.0, file="another-1.mar")
    (folder / "damaged.mar").write_bytes((folder / "m-2.mar").read_bytes()[:-9])
    refused: list[tuple[Callable[[], object], type[SaaaError], str]] = [
        (lambda: load(folder, elsewhere / "m-4.mar"), OptionInvalid, "not in the model folder"),
        (lambda: load(folder, Path("another-1.mar")), OptionInvalid, "a version never changes"),
        (lambda: load(folder, Path("damaged.mar")), ArchiveError, "cannot be read"),
        (lambda: load(folder, Path("nothing.mar")), ArchiveError, "no such archive"),
        (lambda: unload(folder, "m", "2"), OptionInvalid, "is the default"),
        (lambda: unload(folder, "m", "1"), OptionInvalid, "is pinned"),
        (lambda: unload(folder, "m"), OptionInvalid, "is pinned"),
        (lambda: unload(folder, "m", "7"), ModelNotFound, "no version 7"),
        (lambda: unload(folder, "n"), ModelNotFound, "No model n"),
        (lambda: promote(folder, "m", "7"), ModelNotFound, "no version 7"),
        (lambda: promote(folder, "m", "1", 1.0), OptionInvalid, "no share"),
        (lambda: promote(folder, "m", "2", 0.1), OptionInvalid, "is the default"),
        (lambda: rollback(folder, "other"), ModelNotFound, "nothing to go back to"),
    ]
    for attempt, kind, says in refused:
        with pytest.raises(kind, match=says):
            attempt()
    assert (folder / FILE_NAME).read_text() == before


def test_a_pin_is_taken_back_by_loading_again(folder: Path) -> None:
    load(folder, Path("m-1.mar"), pinned=True)
    load(folder, Path("m-1.mar"))
    unload(folder, "m", "1")
    assert served(folder)["m"] == ("2", "", 0.0, ["2"])


def test_digests_are_checked_before_anything_is_loaded(folder: Path) -> None:
    load(folder, Path("m-1.mar"))
    unload(folder, "m", "1")
    write(folder, "m", "1", weight=1.0)
    with pytest.raises(ArchiveError, match="its digest is"):
        rollback(folder, "m")
    write(folder, "m", "2", weight=1.0)
    with pytest.raises(StartFailed, match="its digest is"):
        find_archives(folder)
    write(folder, "m", "3", file="m-2.mar")
    with pytest.raises(StartFailed, match="holds m 3, not m 2"):
        find_archives(folder)


def test_a_file_that_lists_nothing_or_is_wrong_is_said_at_the_start(folder: Path) -> None:
    unload(folder, "m")
    unload(folder, "other")
    with pytest.raises(StartFailed, match="lists no model"):
        find_archives(folder)
    (folder / FILE_NAME).write_text("format: 2\nmodels: {}")
    with pytest.raises(StartFailed, match="format 1, not 2"):
        find_archives(folder)


def test_the_command_says_what_is_served(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert manage.run_edit("promote", "m:1", folder, share=0.25, pin=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [" ".join(line.split()[:2] + line.split()[4:]) for line in lines] == [
        "m 1 canary 0.25",
        "m 2 default",
        "other 1 default",
    ]
    for action, what in (("promote", "m"), ("rollback", "m:1"), ("unload", "")):
        with pytest.raises(OptionInvalid, match=f"saaa models {action}"):
            manage.run_edit(action, what, folder, share=None, pin=False)


def test_the_command_line_edits_and_says_what_it_lacks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = str(folder)
    assert main(["models", "promote", "m:1", "--models", name, "--share", "0.25"]) == 0
    assert "canary 0.25" in capsys.readouterr().out
    assert main(["models", "load", "m-1.mar", "--models", name, "--pin"]) == 0
    assert "pinned" in capsys.readouterr().out
    for words, says in (
        (["load", "m-1.mar"], "--models FOLDER"),
        (["list", "--models", name], "running service"),
        (["load", "m-1.mar", "--models", name, "--share", "0.5"], "goes with promote"),
        (["unload", "m:1", "--models", name], "is pinned"),
    ):
        assert main(["models", *words]) == 2
        assert says in capsys.readouterr().err
