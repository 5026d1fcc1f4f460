"""What somebody who means harm sends: damaged and dear images, bytes that are no message, monstrous graphs.

The same seed and number give the same input. `ALL` names the kinds; `mutated` is what most are made with.
"""

from __future__ import annotations

import hashlib
import json
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from saaa.v1 import analysis_pb2 as pb
from saaa.v1 import feedback_pb2
from serving.contract.oip import open_inference_pb2 as oip
from serving.contract.reflection import V1_NAME
from serving.contract.upload import MAX_CHUNK
from tests.saaa.pictures import chunk, photo, png, save, tiff
from tests.serving.contract.test_feedback import request as rating
from tests.serving.pixel_backend import link, thing

SEEDS = [save(photo(), name) for name in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")]
SEEDS += [save(photo(), "JPEG", progressive=True), save(photo(), "TIFF", compression="tiff_lzw")]
SEEDS += [save(photo().convert(mode), "PNG") for mode in ("1", "P", "LA", "RGBA", "I;16")]
SEEDS += [save(photo().convert("CMYK"), "JPEG"), save(photo(), "WEBP", lossless=True)]
"""A small picture in every format and mode."""

NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
"""Where lengths, offsets and counts go wrong."""
WIDE = (0, 1, -1, 7, 2**31 - 1, -(2**31), 2**32 - 1, 2**53, 2**63 - 1, -(2**63))
NAMES = ("", " ", "a" * 64, "a" * 65, "x" * 10_000, "\0", "\x1b[2J", "\u202elamp", "\uff4camp", "🪑" * 40, "%s{0}")
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 3e38, float("inf"), float("-inf"), float("nan"))

ANALYZE = "/saaa.v1.AnalysisService/Analyze"
STREAM = "/saaa.v1.AnalysisService/AnalyzeStream"
UPLOAD = "/saaa.v1.AnalysisService/AnalyzeUpload"
INFER = "/inference.GRPCInferenceService/ModelInfer"
RATE = "/saaa.v1.FeedbackService/RecordRating"
PREDICT = [pb.OUTPUT_PREDICTIONS]


def _methods() -> dict[str, type[Message]]:
    """Every method that the service has, and its request."""
    found: dict[str, type[Message]] = {}
    for module in (pb, feedback_pb2, oip, health_pb2, reflection_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                kind = getattr(module, method.input_type.name)
                found[f"/{service.full_name}/{method.name}"] = kind
                if module is reflection_pb2:
                    found[f"/{V1_NAME}/{method.name}"] = kind
    return found


METHODS = _methods()


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """One call."""

    kind: str
    method: str
    """Full name."""
    messages: tuple[bytes, ...]
    """As they go over the wire; one, unless the method takes a stream."""


def hostile(seed: int, number: int) -> Hostile:
    """The input of that number: all kinds in turn."""
    kind, make = ALL[number % len(ALL)]
    method, *messages = make(random.Random(f"{seed}.{number}"))
    return Hostile(kind=kind, method=method, messages=tuple(messages))


def mutated(rng: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """One to eight changes: bytes, numbers, and pieces lost, doubled, put in or taken from another."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(len(changed) + 1)
        size = min(rng.choice((1, 2, 4, 8, 64, 1024)), len(changed) - place)
        match rng.randrange(8):
            case 0 | 1 if changed:
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            case 2:
                form = rng.choice(("<I", ">I", "<H", ">H"))
                number = rng.choice(NUMBERS) & (0xFFFF if form[1] == "H" else 0xFFFFFFFF)
                changed[place : place + struct.calcsize(form)] = struct.pack(form, number)
            case 3:
                del changed[place : place + size]
            case 4:
                changed[place:place] = changed[place : place + size]
            case 5:
                changed[place:place] = rng.randbytes(rng.choice((1, 4, 100)))
            case 6 if rng.random() < 0.3:
                del changed[place:]
            case 7 if other:
                start = rng.randrange(len(other))
                changed[place : place + size] = other[start : start + rng.choice((4, 64, 4096))]
    return bytes(changed)


def damaged_image(rng: random.Random) -> bytes:
    """A picture of any format with changes."""
    return mutated(rng, rng.choice(SEEDS), rng.choice(SEEDS))


def dear_image(rng: random.Random) -> bytes:
    """Small, and made to cost much: many blocks, great sizes, structures that refer to themselves."""
    count, side = rng.choice((10, 900, 20_000)), rng.choice((1, 60_000, 2**31 - 1))
    picture, gif = SEEDS[1], SEEDS[2]
    empty = chunk(rng.choice((b"teSt", b"tEXt", b"IDAT", b"iCCP", b"eXIf", b"PLTE")), b"")
    match rng.randrange(11):
        case 0:
            return picture[:33] + empty * count + picture[33:]
        case 1:
            return picture[:-12] + empty * count + picture[-12:]
        case 2:
            return png(side, side, rng.choice((1, 8, 16)), rng.choice((0, 2, 3, 6)), bytes(1000))
        case 3:
            # A text that unpacks to far more than it is.
            packed = zlib.compress(bytes(2**22))
            return picture[:33] + chunk(rng.choice((b"zTXt", b"iCCP")), b"a\0\0" + packed) * 3 + picture[33:]
        case 4:
            return (
                gif[:13] + rng.choice((b"!\xfe\1a\0", b"!\xfe\0", b"\0", b"!\xff\x0bNETSCAPE2.0\0")) * count + gif[13:]
            )
        case 5:
            return b"GIF89a" + struct.pack("<HH", side & 0xFFFF, side & 0xFFFF) + gif[10:]
        case 6:
            tags = [(rng.choice((256, 257, 258, 259, 273, 279, 322, 330, 34665)), rng.randrange(14), count, 8)] * count
            return tiff(tags[:2000])
        case 7:
            sizes = [(256, 4, 1, side), (257, 4, 1, side), (262, 3, 1, 1), (259, 3, 1, rng.choice((1, 5, 7, 50000)))]
            return tiff([*sizes, (273, 4, count, 8), (278, 4, 1, 1), (279, 4, count, 8)], bytes(8 * min(count, 2000)))
        case 8:
            form = rng.choice((40, 12, 108, 2**31))
            size = struct.pack("<ii", rng.choice((side, -side)), rng.choice((side, -side)))
            body = struct.pack("<HHIIiiII", 1, rng.choice((1, 8, 24)), rng.randrange(5), 9, 0, 0, 2**31, 0)
            return b"BM" + struct.pack("<IHHII", 9, 0, 0, 54, form) + size + body + bytes(count)
        case 9:
            jpeg = SEEDS[0]
            return (
                jpeg[:2]
                + rng.choice((b"\xff\xe1\0\x02", b"\xff\xda\0\x02", b"\xff", b"\xff\xfe\xff\xff")) * count
                + jpeg[2:]
            )
        case _:
            return b"RIFF" + struct.pack("<I", rng.choice(NUMBERS)) + b"WEBPVP8X" + rng.randbytes(30)


def _analyze_image(rng: random.Random) -> tuple[Any, ...]:
    image = damaged_image(rng) if rng.random() < 0.8 else dear_image(rng)
    return ANALYZE, pb.AnalyzeRequest(image=image, outputs=PREDICT).SerializeToString()


def _carried_image(rng: random.Random) -> tuple[Any, ...]:
    """By the other ways that an image can take."""
    images = [damaged_image(rng) for _ in range(3)]
    match rng.randrange(4):
        case 0:
            asked = [pb.AnalyzeRequest(image=image, outputs=PREDICT) for image in images]
            items = [pb.AnalyzeStreamRequest(item_id=str(n), request=one) for n, one in enumerate(asked)]
            return STREAM, *(item.SerializeToString() for item in items)
        case 1:
            image = images[0] or b"x"
            head = pb.UploadHeader(request=pb.AnalyzeRequest(outputs=PREDICT), size_bytes=len(image))
            head.sha256 = hashlib.sha256(image).hexdigest()
            pieces = [image[at : at + MAX_CHUNK] for at in range(0, len(image), MAX_CHUNK)]
            messages = [pb.AnalyzeUploadRequest(header=head), *(pb.AnalyzeUploadRequest(chunk=p) for p in pieces)]
            return UPLOAD, *(message.SerializeToString() for message in messages)
        case 2:
            contents = oip.InferTensorContents(bytes_contents=images)
            tensor = oip.ModelInferRequest.InferInputTensor(
                name="image", datatype="BYTES", shape=[rng.choice((1, 3, 3, 3))], contents=contents
            )
            model = rng.choice(("tiny-egdd", "colours", "none"))
            return INFER, oip.ModelInferRequest(model_name=model, inputs=[tensor]).SerializeToString()
    digest = hashlib.sha256(images[0]).hexdigest()
    told = rating(f"hostile {digest}", about__provenance__image_sha256=digest, consented_image=images[0])
    return RATE, told.SerializeToString()


def _random_bytes(rng: random.Random) -> tuple[Any, ...]:
    method = rng.choice(list(METHODS))
    return method, *(rng.randbytes(rng.choice((0, 1, 7, 200, 5000))) for _ in range(rng.randint(1, 3)))


def _mutated_message(rng: random.Random) -> tuple[Any, ...]:
    """A proper message with changes, to its own method or another."""
    method, message = rng.choice(_proper(rng))
    if rng.random() < 0.1:
        method = rng.choice(list(METHODS))
    return method, mutated(rng, message.SerializeToString(), rng.randbytes(64))


def _proper(rng: random.Random) -> list[tuple[str, Message]]:
    graph = pb.SceneGraph(objects=[thing(7), thing(9)], relationships=[link(3, 7, 9)])
    asked = pb.AnalyzeRequest(
        image=SEEDS[0],
        graph=graph,
        outputs=PREDICT,
        attribution=pb.AttributionOptions(method="grad_cam", words=[0], classes=["red"]),
        caption=pb.CaptionOptions(beam_width=2),
        request_id=f"r{rng.random()}",
    )
    head = pb.UploadHeader(request=asked, size_bytes=len(SEEDS[0]), sha256="ab" * 32)
    tensor = oip.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])
    return [
        (ANALYZE, asked),
        (STREAM, pb.AnalyzeStreamRequest(item_id="1", request=asked)),
        (UPLOAD, pb.AnalyzeUploadRequest(header=head)),
        (RATE, rating(f"r{rng.random()}")),
        (
            INFER,
            oip.ModelInferRequest(model_name="tiny-egdd", inputs=[tensor], raw_input_contents=[b"\5\0\0\0" + b"x" * 5]),
        ),
    ]


def _wire(rng: random.Random) -> tuple[Any, ...]:
    """Well-formed fields that no contract has, and messages in messages to any depth."""

    def varint(value: int) -> bytes:
        out = bytearray()
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes((*out, value))

    data = rng.randbytes(8)
    for _ in range(rng.choice((1, 50, 99, 101, 2000))):
        if len(data) > 2**15:
            break
        field = rng.choice((1, 2, 3, 5, 19_000, 2**29 - 1))
        match rng.randrange(4):
            case 0:
                data += varint(field << 3) + varint(rng.choice(NUMBERS))
            case 1:
                data = varint(field << 3 | 3) + data + varint(field << 3 | 4)
            case _:
                data = varint(field << 3 | 2) + varint(len(data)) + data
    return rng.choice(list(METHODS)), data


def _graph(rng: random.Random) -> tuple[Any, ...]:
    """Ids, boxes, names and references, some or all beyond all bounds, with options of the kind."""
    wildness = rng.choice((0.02, 0.3))
    ids = list(range(1, rng.randint(2, 8)))
    if rng.random() < wildness:
        ids = rng.choices(WIDE, k=len(ids))

    def wild() -> int:
        value = rng.choice(WIDE) if rng.random() < wildness else rng.randint(1, 14)
        return value if -(2**31) <= value < 2**31 else 30

    def name() -> str:
        return rng.choice(NAMES) if rng.random() < wildness else "lamp"

    objects = []
    for number in ids:
        box = pb.Box(x=wild(), y=wild(), width=wild(), height=wild())
        few = rng.choice((0, 1, 2, 3) if rng.random() > wildness else (19, 20, 200))
        objects.append(pb.SceneObject(id=number, name=name(), attributes=[name() for _ in range(few)], box=box))
        if rng.random() < wildness / 2:
            objects[-1].ClearField("box")
    links = [
        pb.Relationship(id=number, subject_id=rng.choice(ids), object_id=rng.choice(ids), name=name())
        for number in range(rng.randint(0, 2 if wildness < 0.1 else 6))
    ]
    wishes = pb.AttributionOptions(
        method=rng.choice(("", "grad_cam", "rise", "region_shapley", name())),
        gamma=rng.choice(FLOATS),
        steps=rng.choice((0, 1, 64, 2**31 - 1)),
        masks=rng.choice((0, 1, 20, 2**31 - 1)),
        words=[rng.choice((0, 1, 2**32 - 1)) for _ in range(rng.randint(0, 3))],
        effects=rng.random() < 0.3,
        nodes=[pb.GraphNode(kind=rng.randrange(6), id=rng.choice(ids), attribute_index=rng.choice((0, 1, 2**31)))],
    )
    drawn = pb.Sampling(temperature=rng.choice(FLOATS), top_p=rng.choice(FLOATS), top_k=rng.choice((0, 1, 2**31)))
    caption = pb.CaptionOptions(beam_width=rng.choice((0, 1, 2**31 - 1)), length_penalty=rng.choice(FLOATS))
    if rng.random() < 0.3:
        caption = pb.CaptionOptions(sampling=drawn)
    asked = pb.AnalyzeRequest(image=SEEDS[1], graph=pb.SceneGraph(objects=objects, relationships=links))
    if rng.random() < wildness:
        asked.attribution.CopyFrom(wishes)
    if rng.random() < wildness:
        asked.caption.CopyFrom(caption)
    if rng.random() < wildness:
        asked.outputs.extend(rng.choices((0, 1, 2, 3, 99), k=2))
    if rng.random() < wildness:
        asked.top_k = rng.choice((0, 1, 2**31 - 1))
    return ANALYZE, asked.SerializeToString()


def _huge_graph(rng: random.Random) -> tuple[Any, ...]:
    count = rng.choice((99, 100, 101, 5000, 30_000))
    graph = pb.SceneGraph(objects=[thing(0), thing(1)])
    match rng.randrange(3):
        case 0:
            graph.objects.extend(thing(number + 2, (0, 0, 5, 5)) for number in range(count))
        case 1:
            graph.relationships.extend(link(number, 0, 1) for number in range(count))
        case 2:
            graph.objects[0].attributes.extend(["red"] * count)
    if rng.random() < 0.3:
        return RATE, rating(f"r{rng.random()}", about__graph=graph).SerializeToString()
    return ANALYZE, pb.AnalyzeRequest(image=SEEDS[1], graph=graph, outputs=PREDICT).SerializeToString()


def hostile_json(rng: random.Random) -> str:
    """A region file: deep, huge, of wrong types, or text that is no JSON."""
    deep = rng.choice((5, 900, 100_000))
    values: list[Any] = [None, True, "", "7", [], {}, [[]], {"x": {}}, *WIDE, *FLOATS, 10**400, "\ud800", "x" * 10_000]
    thing_: dict[str, Any] = {"object_id": 1, "name": "a", "attributes": ["b"], "x": 0, "y": 0, "w": 5, "h": 5}
    link_: dict[str, Any] = {"relationship_id": 1, "subject_id": 1, "object_id": 2, "name": "on"}
    region = {"objects": [thing_, {**thing_, "object_id": 2}], "relationships": [link_], "phrase": "p"}
    match rng.randrange(5):
        case 0:
            where = rng.choice((thing_, link_, region))
            where[rng.choice(list(where))] = rng.choice(values)
        case 1:
            thing_["attributes"] = [rng.choice(values) for _ in range(rng.choice((1, 3, 500)))]
        case 2:
            region["objects"] = [dict(thing_, object_id=n) for n in range(rng.choice((99, 101, 300)))]
        case 3:
            return rng.choice(("[" * deep + "]" * deep, '{"objects":' * deep + "1" + "}" * deep))
        case 4:
            return mutated(rng, json.dumps(region).encode()).decode("utf-8", "surrogateescape")
    return json.dumps(region)


ALL: tuple[tuple[str, Callable[[random.Random], tuple[Any, ...]]], ...] = (
    ("image", _analyze_image),
    ("graph", _graph),
    ("image", _analyze_image),
    ("random bytes", _random_bytes),
    ("carried image", _carried_image),
    ("mutated message", _mutated_message),
    ("image", _analyze_image),
    ("nested fields", _wire),
    ("huge graph", _huge_graph),
)
"""Kinds, in turn; images are most."""
