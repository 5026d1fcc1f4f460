"""The pod of the overlays, run by its own arguments, options, secrets and probes as processes of this machine.

What its volumes are is a folder each, where an emptyDir's ends with the pod and a claim's stays. Images and rights are
not part of this: `test_images`.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from deploy.check.manifests import Manifests, Object
from serving.commands import starting
from tests.deploy.outside import of_dev, of_prod, postgresql, replaced
from tests.deploy.process_pod import ProcessPod, free_ports


@pytest.mark.slow
def test_with_a_claim_no_acknowledged_rating_is_lost(
    variants: dict[str, list[Object]], tiny_models: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_models, tmp_path / "saaa-models")
    replaced(lambda: ProcessPod(variants["dev"], tmp_path), of_dev(tmp_path))
    assert (tmp_path / "saaa-state" / "journals" / "pod" / "journal.jsonl").read_text()


@pytest.mark.slow
def test_with_postgresql_no_acknowledged_rating_is_lost(
    variants: dict[str, list[Object]], tiny_models: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_models, tmp_path / "saaa-models")
    with postgresql(free_ports()[0]) as url:
        outside = of_prod(tmp_path, url)
        replaced(lambda: ProcessPod(variants["prod"], tmp_path, outside.secrets), outside)
    assert not (tmp_path / "saaa-state" / "ratings").exists()


@pytest.mark.slow
def test_a_changed_archive_stops_the_pod_before_anything_loads(
    variants: dict[str, list[Object]], tiny_models: Path, tmp_path: Path
) -> None:
    store = tmp_path / "saaa-models"
    shutil.copytree(tiny_models, store)
    broken = next(store.glob("*.mar"))
    data = bytearray(broken.read_bytes())
    data[len(data) // 2] ^= 1
    broken.write_bytes(data)
    with pytest.raises(AssertionError, match=re.escape(broken.name)), ProcessPod(variants["dev"], tmp_path):
        pass


def test_the_options_of_the_manifests_are_options(
    variants: dict[str, list[Object]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of every overlay and component: read by the program that gets them."""
    for objects in variants.values():
        manifests = Manifests(objects)
        (config,) = [each for each in manifests.of("ConfigMap") if "facade.yaml" in each["data"]]
        for deployment in manifests.of("Deployment"):
            for container in deployment["spec"]["template"]["spec"]["containers"]:
                if container["args"][0] != "serve":
                    continue
                (tmp_path / "facade.yaml").write_text(config["data"]["facade.yaml"])
                words = [word.replace("/etc/saaa", str(tmp_path)) for word in container["args"][1:]]
                words = [word.replace("$(RATINGS_URL)", "postgresql://saaa@db/saaa") for word in words]
                assert starting.run("serve", [*words, "--print_config"]) == 0
                told = yaml.safe_load(capsys.readouterr().out)
                assert (told["host"], told["drain_s"]) == ("0.0.0.0", 55)
