"""The store in a real PostgreSQL: what the one in a file promises, and a server that comes and goes."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from saaa.errors import DataError, OptionInvalid, RatingConflict, RatingsUnavailable, StartFailed
from serving.commands.cli import main
from serving.ratings.export import read_ratings
from serving.ratings.place import Kept, place
from serving.ratings.postgres import _ALONE as ALONE
from serving.ratings.store import RatingStore, check_store
from serving.settings import FacadeSettings
from tests.serving.ratings.test_ratings import Writers, milliseconds, rating, start

pgserver = pytest.importorskip("pgserver", reason="PostgreSQL's binaries are not installed")


class Server:
    """A PostgreSQL of our own, on a socket in a folder."""

    def __init__(self, folder: Path) -> None:
        self._server: Any = pgserver.get_server(folder / "data", cleanup_mode=None)
        self._count = 0

    def new_database(self, more: str = "") -> str:
        """The URL of an empty database."""
        self._count += 1
        name = f"test{self._count}"
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} {more}".encode())
        return str(self._server.get_uri(name))

    def kill(self) -> None:
        """As the machine's power would."""
        self._ctl("stop", "-m", "immediate")

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def _ctl(self, *words: str) -> None:
        from pgserver import _commands

        pg_ctl: Any = vars(_commands)["pg_ctl"]  # made when the package is imported
        pg_ctl(["-w", *words], pgdata=self._server.pgdata, user=self._server.system_user)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="saaa-pg-"))  # a short path: it holds a socket
    server = Server(folder)
    yield server
    server.kill()
    shutil.rmtree(folder)


@pytest.fixture
def url(server: Server) -> str:
    return server.new_database()


@pytest.fixture
async def store(url: str) -> AsyncIterator[RatingStore]:
    store = RatingStore(url)
    yield store
    await store.close()


def names(url: str) -> list[str]:
    return [entry["request_id"] for entry in read_ratings(url)]


async def test_kept_once_in_order_and_never_changed(store: RatingStore, url: str) -> None:
    first = await store.record(rating("one", "ü\x00\u2028"))
    # Another connection sees only what is committed.
    assert names(url) == ["one"]
    again = await store.record(rating("one", "ü\x00\u2028"))
    assert (again.recorded_at, first.new, again.new) == (first.recorded_at, True, False)
    with pytest.raises(RatingConflict):
        await store.record(rating("one", "other"))
    with pytest.raises(RatingConflict):
        await store.record(rating("one", "ü\x00\u2028", image=b"x"))
    outcomes = await asyncio.gather(
        *(store.record(rating(f"r{number % 50}", str(number // 100))) for number in range(200)), return_exceptions=True
    )
    assert [isinstance(outcome, RatingConflict) for outcome in outcomes] == [False] * 100 + [True] * 100
    kept = [outcome for outcome in outcomes if isinstance(outcome, Kept)]
    assert [each.recorded_at for each in kept[:50]] == [each.recorded_at for each in kept[50:]]
    assert [each.new for each in kept] == [True] * 50 + [False] * 50
    assert names(url) == ["one", *(f"r{number}" for number in range(50))]


async def test_each_commit_waits_for_the_disk(server: Server) -> None:
    url = server.new_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET synchronous_commit TO off".encode())
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("off",)
        # A trigger runs inside the writer's transaction, and notes what holds there.
        check_store(url)
        connection.execute(
            "CREATE TABLE seen (setting text); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NEW; END $$; "
            "CREATE TRIGGER note BEFORE INSERT ON saaa_ratings FOR EACH ROW EXECUTE FUNCTION note()"
        )
        store = RatingStore(url)
        await store.record(rating("one"))
        await store.close()
        assert connection.execute("SELECT setting FROM seen").fetchall() == [("on",)]


async def test_a_killed_server_is_told_and_comes_back(store: RatingStore, url: str, server: Server) -> None:
    times = {f"r{number}": await store.record(rating(f"r{number}")) for number in range(20)}
    server.kill()
    try:
        with pytest.raises(RatingsUnavailable, match="cannot be reached") as told:
            await store.record(rating("lost"))
        assert "socket" not in told.value.message
        with pytest.raises(DataError, match="cannot be read"):
            names(url)
        with pytest.raises(StartFailed, match="--ratings"):
            RatingStore(url)
    finally:
        server.start()
    # Nothing that was acknowledged is gone, and the same store goes on.
    assert names(url) == list(times)
    await store.record(rating("lost"))
    assert (await store.record(rating("r3"))).recorded_at == times["r3"].recorded_at
    # Restarted while nobody asks, it is not even noticed.
    server.kill()
    server.start()
    await store.record(rating("later"))
    assert names(url) == [*times, "lost", "later"]


def test_two_services_share_a_database_and_lose_nothing(url: str) -> None:
    """Two real facades; one is killed, the other sees all that either acknowledged."""
    running = [start(url) for _ in range(2)]
    try:
        writers = [Writers(address, number, count=4) for number, (_, address) in enumerate(running)]
        assert all(writer.enough.wait(60) for writer in writers)
        running[0][0].send_signal(signal.SIGKILL)
        writers[0].join()
        running[1][0].terminate()
        writers[1].join()
    finally:
        for process, _ in running:
            process.kill()
            process.wait()
    kept = {entry["request_id"]: milliseconds(entry["recorded_at"]) for entry in read_ratings(url)}
    for writer in writers:
        assert {name: kept.get(name) for name in writer.acknowledged} == writer.acknowledged
    assert kept.keys() <= writers[0].sent | writers[1].sent


async def test_two_stores_at_once_make_one_answer(url: str) -> None:
    stores = await asyncio.gather(*(asyncio.to_thread(RatingStore, url) for _ in range(2)))
    kept = await asyncio.gather(*(s.record(rating(f"r{number}")) for number in range(100) for s in stores))
    times = [each.recorded_at for each in kept]
    assert times[::2] == times[1::2]
    assert sum(each.new for each in kept) == 100
    assert sorted(names(url)) == sorted(f"r{number}" for number in range(100))
    for store in stores:
        await store.close()


async def test_a_writer_that_hangs_does_not_stop_the_others_for_ever(
    store: RatingStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.ratings.postgres._ALONE", ALONE.replace("TO 10000", "TO 200"))
    with psycopg.connect(url) as other:
        other.execute(ALONE)
        with pytest.raises(RatingsUnavailable, match="lock timeout"):
            await store.record(rating("one"))
    assert await store.record(rating("one"))


async def test_images_and_export(
    store: RatingStore, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await store.record(rating("one", image=b"\x00png"))
    await store.record(rating("two", "ü\n"))
    await store.record(rating("three", image=b"\x00png"))
    out, images = tmp_path / "out.jsonl", tmp_path / "images"
    assert main(["ratings", "export", url, "--out", str(out), "--images", str(images)]) == 0
    assert "3 ratings" in capsys.readouterr().out
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["request_id"] for line in lines] == ["one", "two", "three"]
    assert [file.read_bytes() for file in images.iterdir()] == [b"\x00png"]
    assert (images / lines[2]["image"]["file"]).exists()
    assert lines[1]["text"] == "ü\n"


def test_databases_that_cannot_be_used_are_told_and_left_alone(server: Server, url: str) -> None:
    with pytest.raises(DataError, match="no ratings store"):
        names(url)
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE saaa_ratings (theirs text)")
    with pytest.raises(StartFailed, match="another program's"):
        check_store(url)
    with pytest.raises(DataError, match="another program's"):
        names(url)
    with psycopg.connect(url) as connection:
        connection.execute("COMMENT ON TABLE saaa_ratings IS 'saaa ratings 2'")
    with pytest.raises(StartFailed, match="of version 2"):
        check_store(url)
    latin = server.new_database("ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(StartFailed, match="LATIN1"):
        check_store(latin)
    with psycopg.connect(latin) as connection:
        assert connection.execute("SELECT to_regclass('saaa_ratings')").fetchone() == (None,)


def test_an_account_that_may_only_insert(server: Server, url: str) -> None:
    check_store(url)
    with psycopg.connect(url) as connection:
        connection.execute("DROP ROLE IF EXISTS writer")
        connection.execute("CREATE ROLE writer LOGIN PASSWORD 'x'")
        connection.execute("GRANT SELECT, INSERT ON saaa_ratings, saaa_images TO writer")
    limited = url.replace("postgres:@", "writer:@")
    check_store(limited)
    store = RatingStore(limited)
    asyncio.run(record_and_close(store))
    assert names(limited) == ["one"]
    with pytest.raises(StartFailed, match="permission denied"):
        check_store(server.new_database().replace("postgres:@", "writer:@"))


async def record_and_close(store: RatingStore) -> None:
    await store.record(rating("one", image=b"x"))
    await store.close()


@pytest.mark.parametrize(
    "wrong",
    [
        "postgresql://me:SECRET@127.0.0.1:1/db",
        "postgresql://me:pass@SECRET@127.0.0.1:1/db",
        "postgresql://me:SECRET:SECRET@127.0.0.1:1/db",
        "postgresql://me:SECRET/SECRET@127.0.0.1:1/db",
        "postgresql://me:1/SECRET@127.0.0.1:1/db",
        "postgresql://me:SECRET?SECRET@127.0.0.1:1/db",
        "postgresql://me:SECRET%zz@127.0.0.1:1/db",
        "postgresql://me@127.0.0.1:1/db?password=SECRET",
        "postgresql://me:@/db?host=/nowhere/SECRET-is-no-password&password=hidden",
        "mysql://me:SECRET@127.0.0.1/db",
    ],
)
def test_the_password_is_never_shown(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "hidden" if "hidden" in wrong else "SECRET"
    assert secret not in repr(FacadeSettings(ratings=wrong))
    assert main(["serve", "--backend_address", "127.0.0.1:1", "--port", "0", "--ratings", wrong]) == 2
    assert main(["ratings", "export", wrong]) == 2
    told = capsys.readouterr()
    assert secret not in told.out + told.err
    assert "atings" in told.err
    with pytest.raises((StartFailed, OptionInvalid)) as failure:
        place(wrong).writer()
    assert secret not in f"{failure.value!r}{failure.value.message}"
