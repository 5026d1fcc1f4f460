"""The Jobs that train, run by their own command lines: on two nodes, one of them struck in the midst of an epoch."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from deploy.check.manifests import Manifests, Object, containers
from tests.deploy.job_nodes import namespaces_needed, nodes, wait_for
from tests.training.ega.tiny_run import SIZES
from tests.training.ega.tiny_world import make
from tests.training.egdd.conftest import draw
from tests.training.runs import losses, rows
from training.checkpoint import load_checkpoint
from training.cli import main

TRAINED = "dev with training/base"
Whole = Callable[[str], Path]
TINY: dict[str, dict[str, Any]] = {
    "egdd": {
        "model": "test_efficientnet",
        "input_size": 32,
        "aa": "none",
        "batch_size": 2,
        "epochs": 4,
        "warmup_epochs": 1,
        "mixup": 0.2,
        "ema": 0.9,
    },
    "ega": {
        "model": "test_efficientnet",
        "levels": [1, 2],
        "input_size": 64,
        "width": 16,
        "batch_size": 2,
        "epochs": 4,
    },
}
"""In place of the manifest's, so that an epoch takes a second: what is tested is how the job runs."""


def config(objects: list[Object], name: str) -> Any:
    (found,) = [each["data"] for each in Manifests(objects).of("ConfigMap") if f"{name}.yaml" in each["data"]]
    return yaml.safe_load(found[f"{name}.yaml"])


def options(objects: list[Object], name: str, data: Path, output: Path) -> Path:
    """The job's options file with tiny ones in it."""
    path = output.with_suffix(".yaml")
    here = {"data_path": str(data), "output_dir": str(output), "device": "cpu", "num_workers": 0, "threads": 1}
    # Every few steps: what a struck run goes on from is neither its beginning nor the step before.
    path.write_text(yaml.safe_dump({**config(objects, name), **TINY[name], **here, "save_minutes": 0.005}))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    draw(folder / "egdd" / "train", 40, seed=1)
    draw(folder / "egdd" / "val", 3, seed=2)
    return {"egdd": folder / "egdd", "ega": make(folder / "ega", SIZES)}


@pytest.fixture(scope="module")
def whole(variants: dict[str, list[Object]], data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Gives the output folder of a Job, undisturbed."""
    namespaces_needed()

    @functools.cache
    def output(name: str) -> Path:
        folder = tmp_path_factory.mktemp("whole") / name
        run(variants[TRAINED], name, data[name], folder)
        return folder

    return output


def run(
    objects: list[Object], name: str, data: Path, output: Path, *, torchrun: bool | None = None, index: int = 1
) -> int:
    """Run a Job to its end; strike a pod's torchrun, or its training process only, in the midst of the second epoch.
    Gives how many pods failed."""
    job = Manifests(objects).get("Job", f"saaa-{name}")
    assert job is not None
    mounted = {f"/etc/saaa/{name}.yaml": options(objects, name, data, output)}
    with nodes(job, output.with_suffix(".nodes"), mounted) as running:
        if torchrun is not None:
            wait_for((output / "last.pt").exists, running)
            wait_for(lambda: [row for row in rows(output) if row["epoch"] == "2"][3:], running)
            running.kill(index, torchrun=torchrun)
            struck = len(rows(output))
        running.done()
        if torchrun is not None:
            assert struck < len(rows(output)), "it was over when it was struck"
        return running.failed_pods


def assert_same_end(one: Path, other: Path, kind: str) -> None:
    """The same losses in all steps, the same figures after all epochs, and the same weights, to the bit."""
    assert losses(one) == losses(other)
    last, wanted = (load_checkpoint(folder / "last.pt", kind) for folder in (one, other))
    assert last["history"] == wanted["history"]
    first, second = (
        {**last[key]} for last in (last, wanted) for key in (("model",) if kind == "egdd" else ("weights",))
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_a_killed_process_costs_the_steps_since_the_last_checkpoint(
    name: str, whole: Whole, data: dict[str, Path], variants: dict[str, list[Object]], tmp_path: Path
) -> None:
    """torchrun starts the processes of both nodes again; no pod fails."""
    assert run(variants[TRAINED], name, data[name], tmp_path / name, torchrun=False) == 0
    assert_same_end(tmp_path / name, whole(name), name)


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_a_lost_pod_is_made_anew_and_the_run_goes_on(
    index: int, whole: Whole, data: dict[str, Path], variants: dict[str, list[Object]], tmp_path: Path
) -> None:
    """The first pod is where all meet: without it the other one fails, too."""
    failed = run(variants[TRAINED], "egdd", data["egdd"], tmp_path / "egdd", torchrun=True, index=index)
    assert failed >= 1
    assert_same_end(tmp_path / "egdd", whole("egdd"), "egdd")


def test_the_options_of_the_jobs_are_options(
    variants: dict[str, list[Object]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every container of the trainer's image, by its own arguments, but for printing instead of doing."""
    (files,) = [each["data"] for each in Manifests(variants[TRAINED]).of("ConfigMap") if "egdd.yaml" in each["data"]]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    jobs = []
    for workload in Manifests(variants[TRAINED]).of("Job", "CronJob"):
        for container in containers(workload):
            if not container["image"].startswith("saaa/trainer"):
                continue
            words = [word.replace("/etc/saaa", str(tmp_path)) for word in container["args"]]
            words = words[words.index("training") + 1 :] if "training" in words else words
            assert main([*words, *(["--print_config"] if "--print_config" not in words else [])]) == 0
            printed = yaml.safe_load(capsys.readouterr().out)
            jobs.append(" ".join(words[: words.index("--config")]))
            told = yaml.safe_load(Path(words[words.index("--config") + 1]).read_text())
            assert {key: printed[key] for key in told} == told
            assert json.dumps(printed)
    assert sorted(jobs) == ["archive egdd", "debug-train", "ega", "ega", "egdd", "egdd", "evaluate egdd"]
