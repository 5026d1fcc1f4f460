import numpy as np
import torch
from torch.testing import assert_close

from benchmarks.captioner_read import SPLIT, make_data, packed_batches, published_batches
from training.pack import PackConfig, run
from training.pack.reader import PackedSet


def test_both_readers_give_the_same_batches(tmp_path):
    folder = make_data(tmp_path / "data", 12)
    report = run(PackConfig(data_path=folder, features=folder, output_dir=tmp_path / "packed"))[SPLIT]
    assert (report["skipped"], report["regions"], report["unknown_words"]) == (0, 12, 0)
    packed = PackedSet(tmp_path / "packed" / SPLIT)
    orders = [np.array([3, 11, 0]), np.array([7])]
    published = published_batches(folder, packed.vocabulary, orders)
    for mine, (nodes, roles, image, relations, flow, tokens) in zip(
        packed_batches(packed, orders), published, strict=True
    ):
        mask = mine.graphs.mask
        size, length = mask.shape[1], mine.captions.shape[1]
        assert_close(mask, roles[2, :, :size].bool())
        assert not roles[2, :, size:].any()
        assert_close(mine.graphs.types, roles[0, :, :size])
        assert_close(mine.graphs.orders, roles[1, :, :size])
        assert_close(mine.regions[mask], nodes[:, :size][mask], rtol=0, atol=0)
        assert_close(mine.image, image)
        assert_close(mine.graphs.relations, relations[..., :size, :size])
        assert_close(mine.graphs.flow, flow[:, :size, :size])
        assert_close(mine.captions, tokens[:, :length])
        assert torch.all(tokens[:, length:] == 1)
