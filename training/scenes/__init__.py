"""The procedural world: a seeded renderer of indoor-like scenes with exact truth.

A scene's class is a function (`label_of`) of its objects, attributes and relationships; everything else (room, light,
other objects) is drawn alike for every class. Each object is drawn from its own seed, so that the `evidence`, the
objects whose removal flips the label, can be verified by drawing the scene again without them.

A world on disk (`saaa-train scenes`):

    {train,val,test,pool}/<class>/<image_id>.jpg (a pool only where it was asked for)
    masks/<image_id>.png                      uint8: 0 the room, k the visible pixels of object k
    scenes.jsonl                              a line an image: id, split, class, file, size, objects, relationships
                                              (ids as in the region files), evidence (object ids), confound
                                              (kind and cue, or null; with `confound_held_out` also `of`, the
                                              class whose cue it is)
    annotations/regionfiles/<image_id>.json   regions: sub-graphs of at most 10 nodes, with a phrase
    annotations/regionfiles/<set>_names.npy   (image_id, region_id) pairs
    annotations/public_split/<set>_names.npy  image names; sets: trn = train, val = val, val_sub = test
    annotations/cleaned_<set>_region_descriptions.json, int2word.npy, word2int.json
    contact_sheet.png, world.json             a picture for people; options, counts and digest
"""

from training.scenes.classes import CLASSES, evidence_of, label_of
from training.scenes.config import ScenesConfig
from training.scenes.prompt import parse_prompt, render_prompt
from training.scenes.renderer import evidence_masks, render
from training.scenes.sampler import sample_scene
from training.scenes.writer import Summary, run

__all__ = [
    "CLASSES",
    "ScenesConfig",
    "Summary",
    "evidence_masks",
    "evidence_of",
    "label_of",
    "parse_prompt",
    "render",
    "render_prompt",
    "run",
    "sample_scene",
]
