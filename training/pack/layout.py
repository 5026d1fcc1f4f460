"""The files of a packed split: flat arrays that can be memory-mapped, with an index from regions to their parts.

pack.json          format, counts and what was noticed, see `training.pack.job`; "features": what made them, or null
regions.jsonl      {"image_id", "region_id", "captions", "graph"} a region, for evaluation
words.json         the vocabulary
skipped.txt        what is not in the cache, and why
features.f32       float32 (rows, size), little-endian: a row for each box that some node has
region_moments.npy float64 (2, size): mean and standard deviation of the features of all nodes
image.npy          float32 (images, size): global features
image_moments.npy  float64 (2, size), alike
image_of.npy       int32 (regions,)
nodes.npy          int32 (nodes, 4): row of features, type, order, number of the name (-1 for none)
node_starts.npy    int64 (regions + 1,): region r has nodes starts[r] to starts[r + 1]
edges.npy          uint8 (edges, 3): source, target, type, counted within their region
edge_starts.npy    int64 (regions + 1,)
captions.npy       int32 (captions, tokens): ids, padded with EOS
lengths.npy        int64 (captions,)
region_of.npy      int64 (captions,)
named.npy          uint8 (K, 2): token and node that it names, see `training.ega.explanation.align`
named_weight.npy   float16 (K,)
named_starts.npy   int64 (captions + 1,)
"""

from __future__ import annotations

FORMAT = 2
HEAD, REGIONS, WORDS, SKIPPED, FEATURES = "pack.json", "regions.jsonl", "words.json", "skipped.txt", "features.f32"
ARRAYS = (
    "region_moments",
    "image",
    "image_moments",
    "image_of",
    "nodes",
    "node_starts",
    "edges",
    "edge_starts",
    "captions",
    "lengths",
    "region_of",
    "named",
    "named_weight",
    "named_starts",
)
