"""Tokens and their file."""

from __future__ import annotations

import json
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saaa.errors import DataError, OptionInvalid
from serving.security.scopes import Scope
from serving.security.tokens import PREFIX, Token, TokenTable, create, listed, read_tokens, revoke

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_a_token_is_found_until_it_expires_or_is_revoked(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    text, kept = create(path, "kiosk", [Scope.FEEDBACK, Scope.ANALYZE, Scope.ANALYZE], days=1, now=NOW)
    other, _ = create(path, "batch", [Scope.ANALYZE], days=None, now=NOW)
    assert kept.scopes == (Scope.ANALYZE, Scope.FEEDBACK)
    assert (kept.name, kept.created, kept.expires) == ("kiosk", NOW, NOW + timedelta(days=1))
    table = TokenTable(read_tokens(path))
    assert table.find(text, NOW) == kept
    assert table.find(text, NOW + timedelta(days=1, seconds=-1)) == kept
    assert table.find(text, NOW + timedelta(days=1)) is None
    assert table.find(other, NOW + timedelta(days=10_000)) is not None
    assert revoke(path, kept.id) == kept
    assert TokenTable(listed(path)).find(text, NOW) is None
    assert [token.name for token in listed(path)] == ["batch"]
    with pytest.raises(OptionInvalid, match=kept.id):
        revoke(path, kept.id)


def test_the_file_keeps_no_token_and_is_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    text, kept = create(path, "kiosk", [Scope.ANALYZE], days=None)
    head = f"{PREFIX}{kept.id}_"
    assert text.startswith(head)
    # Itself it may hold a "_".
    secret = text.removeprefix(head)
    assert len(secret) >= 40
    assert secret not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".tokens.json.lock", "tokens.json"]


def test_only_the_whole_text_counts(tmp_path: Path) -> None:
    text, kept = create(tmp_path / "tokens.json", "kiosk", [Scope.ANALYZE], days=None)
    table = TokenTable([kept])
    for wrong in (
        "",
        PREFIX,
        text[:-1],
        text + "x",
        text.upper(),
        text[len(PREFIX) :],
        f"{PREFIX}{kept.id}_",
        "é\udcff",
    ):
        assert table.find(wrong, NOW) is None


@given(data=st.binary(max_size=60))
def test_no_text_upsets_the_table(data: bytes) -> None:
    # As metadata comes: whatever bytes there are.
    text = data.decode("latin-1")
    kept = Token(id="0" * 12, name="x", sha256="0" * 64, scopes=(Scope.ANALYZE,), created=NOW, expires=None)
    assert TokenTable([kept]).find(text, NOW) is None
    assert TokenTable([kept]).find(f"{PREFIX}{'0' * 12}_{text}", NOW) is None


def test_tokens_made_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    names = [f"caller {number}" for number in range(16)]
    threads = [
        threading.Thread(target=create, args=(path, name, [Scope.ANALYZE]), kwargs={"days": None}) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(token.name for token in listed(path)) == sorted(names)


@pytest.mark.parametrize(
    ("name", "scopes", "days", "field"),
    [
        ("", [Scope.ANALYZE], None, "name"),
        ("x" * 65, [Scope.ANALYZE], None, "name"),
        ("two\nlines", [Scope.ANALYZE], None, "name"),
        ("x", [], None, "scopes"),
        ("x", [Scope.ANALYZE], 0, "days"),
        ("x", [Scope.ANALYZE], -1, "days"),
        ("x", [Scope.ANALYZE], float("nan"), "days"),
        ("x", [Scope.ANALYZE], float("inf"), "days"),
    ],
)
def test_values_outside_their_range_make_no_token(
    tmp_path: Path, name: str, scopes: list[Scope], days: float | None, field: str
) -> None:
    path = tmp_path / "tokens.json"
    with pytest.raises(OptionInvalid) as wrong:
        create(path, name, scopes, days=days)
    assert wrong.value.field == field
    assert not path.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda document: "[]",
        lambda document: "not json",
        lambda document: json.dumps({**document, "version": 2}),
        lambda document: json.dumps({"version": 1}),
        lambda document: json.dumps({"version": 1, "tokens": [{}]}),
        lambda document: json.dumps(document).replace("analyze", "everything"),
        lambda document: json.dumps(document).replace('"expires": null', '"expires": "2026-01-31T12:00:00"'),
        lambda document: json.dumps(document).replace('"expires": null', '"expires": "soon"'),
        lambda document: json.dumps(document).replace('"sha256": "', '"sha256": "g'),
    ],
)
def test_a_broken_file_is_refused_and_left_alone(tmp_path: Path, change: object) -> None:
    path = tmp_path / "tokens.json"
    create(path, "kiosk", [Scope.ANALYZE], days=None)
    broken = change(json.loads(path.read_text()))  # type: ignore[operator]
    path.write_text(broken)
    for use in (lambda: listed(path), lambda: create(path, "x", [Scope.ANALYZE], days=None), lambda: revoke(path, "1")):
        with pytest.raises(DataError, match=r"tokens\.json"):
            use()
    assert path.read_text() == broken


def test_a_missing_file_or_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        listed(tmp_path / "none.json")
    with pytest.raises(DataError, match="No such file"):
        create(tmp_path / "nowhere" / "tokens.json", "x", [Scope.ANALYZE], days=None)
    # Revoking makes no file.
    with pytest.raises(DataError, match="No such file"):
        revoke(tmp_path / "none.json", "1")
    assert not (tmp_path / "none.json").exists()
