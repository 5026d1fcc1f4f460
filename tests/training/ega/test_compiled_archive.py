"""`saaa-train archive ega --runtime openvino`: the archive's graph captions as torch does, and the card says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from saaa import archive
from saaa.errors import DataError, OptionInvalid
from saaa.runtime.executor import Executor
from saaa.runtime.options import RuntimeOptions
from tests.training.ega.tiny_run import config_for
from training.ega.config import ArchiveConfig
from training.ega.packing import pack
from training.ega.train import train

pytest.importorskip("openvino", reason="needs the extra openvino")


@pytest.fixture(scope="module")
def checkpoint(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(config_for(tiny_world, folder, epochs=1))
    return folder / "last.pt"


def test_the_archive_is_served_compiled(
    checkpoint: Path, tiny_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ega.mar"
    pack(ArchiveConfig(checkpoint=checkpoint, output=path, runtime="openvino", data_path=tiny_world, parity_graphs=5))
    told = archive.read(path).card["runtime"]["openvino"]["fp32"]
    assert (told["graphs"], told["equal"], told["equal_beam"], told["refused"]) == (5, 1.0, 1.0, None)
    assert "fp32: the same caption along 100.0% (greedy) and 100.0% (beam) of 5 graphs" in capsys.readouterr().out
    executor = Executor.open(path, threads=1, runtime=RuntimeOptions(runtime="openvino", precision="fp32"))
    assert "openvino" in executor.info.runtime
    assert "refused" not in executor.info.runtime
    executor.warm_up()


def test_a_split_that_is_not_there(checkpoint: Path, tiny_world: Path, tmp_path: Path) -> None:
    config = ArchiveConfig(
        checkpoint=checkpoint,
        output=tmp_path / "a.mar",
        runtime="openvino",
        data_path=tiny_world,
        eval_set="tst",
    )
    with pytest.raises(DataError, match="no split 'tst'"):
        pack(config)
    assert not config.output.exists()


def test_options() -> None:
    needed = {"checkpoint": Path("a.pt"), "output": Path("a.mar")}
    with pytest.raises(OptionInvalid, match="choose torch or openvino"):
        ArchiveConfig(**needed, runtime="cuda")
    with pytest.raises(OptionInvalid, match="--data_path"):
        ArchiveConfig(**needed, runtime="openvino")
