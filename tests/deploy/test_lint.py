"""hadolint and checkov find nothing that was not looked at and left for a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from deploy.check.manifests import Object
from deploy.check.tools import DEPLOY, run
from tests.deploy.conftest import tools_needed

RECIPES = sorted((DEPLOY / "images").glob("*.Dockerfile"))


@pytest.fixture(scope="module")
def findings(variants: dict[str, list[Object]], tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """(file, check) of all that checkov finds: in recipes, in manifests, and in a manifest that was broken."""
    folder = tmp_path_factory.mktemp("checkov")
    for recipe in RECIPES:
        (folder / recipe.name).write_text(recipe.read_text())
    for name in ("dev", "prod with split", "prod with training/base and training/secured"):
        (folder / f"{name.replace('/', '-')}.yaml").write_text(yaml.safe_dump_all(variants[name]))
    broken = yaml.safe_dump_all(variants["dev"]).replace("allowPrivilegeEscalation: false", "privileged: true")
    (folder / "broken.yaml").write_text(broken)
    what = ("--framework", "kubernetes", "dockerfile", "-d", folder, "-o", "json")
    with tools_needed():
        done = run("checkov", "--config-file", DEPLOY / "checkov.yaml", *what, timeout=300)
    reports = json.loads(done.stdout)
    assert {report["check_type"]: report["summary"]["passed"] > 100 for report in reports} == {
        "kubernetes": True,
        "dockerfile": True,
    }
    failed = [found for report in reports for found in report["results"]["failed_checks"]]
    return {(found["file_path"].strip("/"), found["check_id"]) for found in failed}


def test_hadolint_finds_nothing() -> None:
    assert [path.name for path in RECIPES] == ["facade.Dockerfile", "torchserve.Dockerfile", "trainer.Dockerfile"]
    with tools_needed():
        done = run("hadolint", *RECIPES)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_finds_a_fault(tmp_path: Path) -> None:
    broken = tmp_path / "broken.Dockerfile"
    broken.write_text(RECIPES[0].read_text().replace("WORKDIR /build", "WORKDIR build"))
    with tools_needed():
        done = run("hadolint", broken)
    assert done.returncode == 1
    assert "DL3000" in done.stdout


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_images_are_like_their_pods(recipe: Path) -> None:
    lines = recipe.read_text().splitlines()
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001:10001"]
    assert sum(line.startswith("FROM ${BASE}") for line in lines) == 2
    assert any("--require-hashes" in line for line in lines)
    assert any("org.opencontainers.image.revision" in line for line in lines)


def test_checkov_finds_the_fault_and_nothing_else(findings: set[tuple[str, str]]) -> None:
    assert ("broken.yaml", "CKV_K8S_16") in findings  # privileged
    assert {file for file, _ in findings} == {"broken.yaml"}
