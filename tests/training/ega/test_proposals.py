import json
import os

import pytest

from saaa.client import AsyncClient
from saaa.errors import DataError, OptionInvalid
from saaa.images import encode_png
from saaa.scene_graph import SceneGraph
from serving.backends.local import LocalBackend
from serving.server import Facade
from serving.settings import FacadeSettings
from tests.tiny_models import make_pixels
from training.ega.proposals import BATCH, propose_graphs
from training.ega.published import ImageFolder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """More than a batch of pictures of several shapes."""
    path = tmp_path_factory.mktemp("pictures")
    for k, pixels in enumerate(make_pixels(BATCH + 2, seed=3)):
        (path / f"{k:02d}.png").write_bytes(encode_png(pixels[: 64 - k, : 40 + k]))
    return ImageFolder(path, {file.name for file in path.iterdir()})


async def test_the_graph_is_that_of_a_request_without_one(tiny_models, folder):
    names = sorted(folder.paths)
    proposed = propose_graphs(tiny_models / "egdd.mar", [*names, names[0]], folder)
    assert list(proposed) == names
    assert len({json.dumps(graph.to_region()) for graph in proposed.values()}) > 1
    async with (
        LocalBackend(tiny_models) as backend,
        Facade(backend, FacadeSettings(port=0)) as facade,
        AsyncClient(facade.address) as client,
    ):
        for name in names[:6]:
            answer = await client.analyze(folder.paths[name].read_bytes())
            assert answer.graph_source == "proposed"
            assert SceneGraph.from_region(answer.graph.to_region()) == proposed[name]


def test_what_was_proposed_is_kept_until_image_or_model_change(tiny_models, folder, tmp_path):
    egdd, cache, names = tiny_models / "egdd.mar", tmp_path / "new" / "proposed.json", sorted(folder.paths)[:3]
    first = propose_graphs(egdd, names, folder, cache=cache)
    planted = json.loads(cache.read_text())
    for region in planted.values():
        region["objects"][0]["name"] = "planted"  # shows when the file is read
    cache.write_text(json.dumps(planted))
    assert {g.objects[0].name for g in propose_graphs(egdd, names, folder, cache=cache).values()} == {"planted"}

    stat = folder.paths[names[0]].stat()
    os.utime(folder.paths[names[0]], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    again = propose_graphs(egdd, names, folder, cache=cache)
    assert again[names[0]] == first[names[0]]
    assert again[names[1]].objects[0].name == "planted"

    cache.write_text("cut")
    assert propose_graphs(egdd, names, folder, cache=cache) == first


def test_faults_are_named(tiny_models, folder, tmp_path):
    with pytest.raises(OptionInvalid, match="an EGDD archive"):
        propose_graphs(tiny_models / "ega.mar", [], folder)
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"a\.jpg cannot be read as an image"):
        propose_graphs(tiny_models / "egdd.mar", ["a.jpg"], ImageFolder(tmp_path, {"a.jpg"}))
