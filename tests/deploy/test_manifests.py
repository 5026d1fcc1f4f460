"""Everything that can be applied is accepted by kustomize, the schemas, the rules, and the real kubectl."""

from __future__ import annotations

import yaml

from deploy.check.manifests import ADDED, OVERLAYS, Object
from deploy.check.rules import problems
from deploy.check.tools import DEPLOY, run

Variants = dict[str, list[Object]]


def test_every_overlay_and_component_is_built(variants: Variants) -> None:
    assert {path.name for path in (DEPLOY / "overlays").iterdir()} == set(OVERLAYS)
    used = {component for _, *components in ADDED for component in components}
    for overlay in OVERLAYS:
        told = yaml.safe_load((DEPLOY / "overlays" / overlay / "kustomization.yaml").read_text())
        used |= {path.removeprefix("../../") for path in told.get("components", ())}
    folders = [path for parent in ("components", "training") for path in (DEPLOY / parent).iterdir()]
    assert {path.relative_to(DEPLOY).as_posix() for path in folders} == used


def test_rules_find_nothing(variants: Variants) -> None:
    assert {name: problems(objects) for name, objects in variants.items()} == {name: [] for name in variants}


def test_kubectl_applies_them(variants: Variants, api_server: str) -> None:
    # Without an OpenAPI endpoint kubectl cannot validate by itself; the stub does.
    apply = ("apply", "--server-side", "--dry-run=server", "--validate=ignore", "-f", "-")
    for name, objects in variants.items():
        done = run("kubectl", "--server", api_server, *apply, stdin=yaml.safe_dump_all(objects))
        assert done.returncode == 0, f"{name}: {done.stderr}"
        assert done.stdout.count("serverside-applied") == len(objects)


def test_kubectl_tells_what_the_server_refuses(variants: Variants, api_server: str) -> None:
    text = yaml.safe_dump_all(variants["dev"]).replace("readOnlyRootFilesystem", "readOnlyRootFileSystem")
    done = run(
        "kubectl", "--server", api_server, "apply", "--server-side", "--dry-run=server", "--validate=ignore", "-f", "-",
        stdin=text,
    )  # fmt: skip
    assert done.returncode != 0
    assert "readOnlyRootFileSystem" in done.stderr
