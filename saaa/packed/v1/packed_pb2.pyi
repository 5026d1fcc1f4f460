from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Work(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORK_UNSPECIFIED: _ClassVar[Work]
    WORK_PREDICT: _ClassVar[Work]
    WORK_EXPLAIN: _ClassVar[Work]
    WORK_CAPTION: _ClassVar[Work]
    WORK_DESCRIBE: _ClassVar[Work]

class TargetKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TARGET_KIND_UNSPECIFIED: _ClassVar[TargetKind]
    TARGET_KIND_CLASS: _ClassVar[TargetKind]
    TARGET_KIND_WORD: _ClassVar[TargetKind]
    TARGET_KIND_NODE: _ClassVar[TargetKind]
WORK_UNSPECIFIED: Work
WORK_PREDICT: Work
WORK_EXPLAIN: Work
WORK_CAPTION: Work
WORK_DESCRIBE: Work
TARGET_KIND_UNSPECIFIED: TargetKind
TARGET_KIND_CLASS: TargetKind
TARGET_KIND_WORD: TargetKind
TARGET_KIND_NODE: TargetKind

class Batch(_message.Message):
    __slots__ = ("work", "shape", "items", "method", "steps", "beam_width", "count", "max_words", "model", "version", "gamma", "masks", "seed", "deletion", "effects", "length_penalty", "sampling", "trace")
    WORK_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    BEAM_WIDTH_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_WORDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    GAMMA_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    DELETION_FIELD_NUMBER: _ClassVar[int]
    EFFECTS_FIELD_NUMBER: _ClassVar[int]
    LENGTH_PENALTY_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    work: Work
    shape: _containers.RepeatedScalarFieldContainer[int]
    items: _containers.RepeatedCompositeFieldContainer[Item]
    method: str
    steps: int
    beam_width: int
    count: int
    max_words: int
    model: str
    version: str
    gamma: float
    masks: int
    seed: int
    deletion: bool
    effects: bool
    length_penalty: float
    sampling: Sampling
    trace: str
    def __init__(self, work: _Optional[_Union[Work, str]] = ..., shape: _Optional[_Iterable[int]] = ..., items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ..., method: _Optional[str] = ..., steps: _Optional[int] = ..., beam_width: _Optional[int] = ..., count: _Optional[int] = ..., max_words: _Optional[int] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., gamma: _Optional[float] = ..., masks: _Optional[int] = ..., seed: _Optional[int] = ..., deletion: _Optional[bool] = ..., effects: _Optional[bool] = ..., length_penalty: _Optional[float] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., trace: _Optional[str] = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ("temperature", "top_k", "top_p", "seed")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_k: int
    top_p: float
    seed: int
    def __init__(self, temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., seed: _Optional[int] = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("targets", "graph", "text", "words", "every_word", "nodes")
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    GRAPH_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    EVERY_WORD_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    targets: _containers.RepeatedScalarFieldContainer[int]
    graph: Graph
    text: Words
    words: _containers.RepeatedScalarFieldContainer[int]
    every_word: bool
    nodes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, targets: _Optional[_Iterable[int]] = ..., graph: _Optional[_Union[Graph, _Mapping]] = ..., text: _Optional[_Union[Words, _Mapping]] = ..., words: _Optional[_Iterable[int]] = ..., every_word: _Optional[bool] = ..., nodes: _Optional[_Iterable[int]] = ...) -> None: ...

class Words(_message.Message):
    __slots__ = ("words",)
    WORDS_FIELD_NUMBER: _ClassVar[int]
    words: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, words: _Optional[_Iterable[str]] = ...) -> None: ...

class Graph(_message.Message):
    __slots__ = ("types", "orders", "boxes", "edges")
    TYPES_FIELD_NUMBER: _ClassVar[int]
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    types: _containers.RepeatedScalarFieldContainer[int]
    orders: _containers.RepeatedScalarFieldContainer[int]
    boxes: _containers.RepeatedScalarFieldContainer[float]
    edges: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, types: _Optional[_Iterable[int]] = ..., orders: _Optional[_Iterable[int]] = ..., boxes: _Optional[_Iterable[float]] = ..., edges: _Optional[_Iterable[int]] = ...) -> None: ...

class Results(_message.Message):
    __slots__ = ("results", "description_json", "error")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_JSON_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[Result]
    description_json: str
    error: Error
    def __init__(self, results: _Optional[_Iterable[_Union[Result, _Mapping]]] = ..., description_json: _Optional[str] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("error", "probabilities", "maps", "captions", "recomputed")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    MAPS_FIELD_NUMBER: _ClassVar[int]
    CAPTIONS_FIELD_NUMBER: _ClassVar[int]
    RECOMPUTED_FIELD_NUMBER: _ClassVar[int]
    error: Error
    probabilities: bytes
    maps: _containers.RepeatedCompositeFieldContainer[Map]
    captions: _containers.RepeatedCompositeFieldContainer[Caption]
    recomputed: bool
    def __init__(self, error: _Optional[_Union[Error, _Mapping]] = ..., probabilities: _Optional[bytes] = ..., maps: _Optional[_Iterable[_Union[Map, _Mapping]]] = ..., captions: _Optional[_Iterable[_Union[Caption, _Mapping]]] = ..., recomputed: _Optional[bool] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("reason", "message", "field")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    field: str
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ..., field: _Optional[str] = ...) -> None: ...

class Map(_message.Message):
    __slots__ = ("target", "method", "height", "width", "values", "completeness_gap", "kind", "deletion_drop", "node_weights", "effects")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    COMPLETENESS_GAP_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DELETION_DROP_FIELD_NUMBER: _ClassVar[int]
    NODE_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    EFFECTS_FIELD_NUMBER: _ClassVar[int]
    target: int
    method: str
    height: int
    width: int
    values: bytes
    completeness_gap: float
    kind: TargetKind
    deletion_drop: float
    node_weights: bytes
    effects: bytes
    def __init__(self, target: _Optional[int] = ..., method: _Optional[str] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., values: _Optional[bytes] = ..., completeness_gap: _Optional[float] = ..., kind: _Optional[_Union[TargetKind, str]] = ..., deletion_drop: _Optional[float] = ..., node_weights: _Optional[bytes] = ..., effects: _Optional[bytes] = ...) -> None: ...

class Caption(_message.Message):
    __slots__ = ("words", "log_probabilities", "node_weights", "log_probability", "nodes")
    WORDS_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    NODE_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    words: _containers.RepeatedScalarFieldContainer[str]
    log_probabilities: bytes
    node_weights: bytes
    log_probability: float
    nodes: int
    def __init__(self, words: _Optional[_Iterable[str]] = ..., log_probabilities: _Optional[bytes] = ..., node_weights: _Optional[bytes] = ..., log_probability: _Optional[float] = ..., nodes: _Optional[int] = ...) -> None: ...
