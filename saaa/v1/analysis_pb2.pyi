from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Output(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTPUT_UNSPECIFIED: _ClassVar[Output]
    OUTPUT_PREDICTIONS: _ClassVar[Output]
    OUTPUT_ATTRIBUTIONS: _ClassVar[Output]
    OUTPUT_CAPTIONS: _ClassVar[Output]

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    PRIORITY_INTERACTIVE: _ClassVar[Priority]
    PRIORITY_BATCH: _ClassVar[Priority]

class GraphSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GRAPH_SOURCE_UNSPECIFIED: _ClassVar[GraphSource]
    GRAPH_SOURCE_REQUEST: _ClassVar[GraphSource]
    GRAPH_SOURCE_PROPOSED: _ClassVar[GraphSource]

class FaithfulnessMeasure(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FAITHFULNESS_MEASURE_UNSPECIFIED: _ClassVar[FaithfulnessMeasure]
    FAITHFULNESS_MEASURE_NOT_COMPUTED: _ClassVar[FaithfulnessMeasure]
    FAITHFULNESS_MEASURE_COMPLETENESS_GAP: _ClassVar[FaithfulnessMeasure]
    FAITHFULNESS_MEASURE_DELETION_DROP: _ClassVar[FaithfulnessMeasure]

class NodeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NODE_KIND_UNSPECIFIED: _ClassVar[NodeKind]
    NODE_KIND_OBJECT: _ClassVar[NodeKind]
    NODE_KIND_ATTRIBUTE: _ClassVar[NodeKind]
    NODE_KIND_RELATIONSHIP: _ClassVar[NodeKind]

class ScoreDefinition(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCORE_DEFINITION_UNSPECIFIED: _ClassVar[ScoreDefinition]
    SCORE_DEFINITION_EFFECT_SHARE: _ClassVar[ScoreDefinition]
    SCORE_DEFINITION_DENSITY_SHARE: _ClassVar[ScoreDefinition]

class ModelKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_KIND_UNSPECIFIED: _ClassVar[ModelKind]
    MODEL_KIND_EGDD: _ClassVar[ModelKind]
    MODEL_KIND_EGA: _ClassVar[ModelKind]

class TargetKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TARGET_KIND_UNSPECIFIED: _ClassVar[TargetKind]
    TARGET_KIND_CLASS: _ClassVar[TargetKind]
    TARGET_KIND_WORD: _ClassVar[TargetKind]
    TARGET_KIND_NODE: _ClassVar[TargetKind]
OUTPUT_UNSPECIFIED: Output
OUTPUT_PREDICTIONS: Output
OUTPUT_ATTRIBUTIONS: Output
OUTPUT_CAPTIONS: Output
PRIORITY_UNSPECIFIED: Priority
PRIORITY_INTERACTIVE: Priority
PRIORITY_BATCH: Priority
GRAPH_SOURCE_UNSPECIFIED: GraphSource
GRAPH_SOURCE_REQUEST: GraphSource
GRAPH_SOURCE_PROPOSED: GraphSource
FAITHFULNESS_MEASURE_UNSPECIFIED: FaithfulnessMeasure
FAITHFULNESS_MEASURE_NOT_COMPUTED: FaithfulnessMeasure
FAITHFULNESS_MEASURE_COMPLETENESS_GAP: FaithfulnessMeasure
FAITHFULNESS_MEASURE_DELETION_DROP: FaithfulnessMeasure
NODE_KIND_UNSPECIFIED: NodeKind
NODE_KIND_OBJECT: NodeKind
NODE_KIND_ATTRIBUTE: NodeKind
NODE_KIND_RELATIONSHIP: NodeKind
SCORE_DEFINITION_UNSPECIFIED: ScoreDefinition
SCORE_DEFINITION_EFFECT_SHARE: ScoreDefinition
SCORE_DEFINITION_DENSITY_SHARE: ScoreDefinition
MODEL_KIND_UNSPECIFIED: ModelKind
MODEL_KIND_EGDD: ModelKind
MODEL_KIND_EGA: ModelKind
TARGET_KIND_UNSPECIFIED: TargetKind
TARGET_KIND_CLASS: TargetKind
TARGET_KIND_WORD: TargetKind
TARGET_KIND_NODE: TargetKind

class AnalyzeRequest(_message.Message):
    __slots__ = ("image", "graph", "outputs", "top_k", "attribution", "caption", "classifier", "captioner", "request_id", "priority")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    GRAPH_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    CAPTION_FIELD_NUMBER: _ClassVar[int]
    CLASSIFIER_FIELD_NUMBER: _ClassVar[int]
    CAPTIONER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    graph: SceneGraph
    outputs: _containers.RepeatedScalarFieldContainer[Output]
    top_k: int
    attribution: AttributionOptions
    caption: CaptionOptions
    classifier: ModelSelector
    captioner: ModelSelector
    request_id: str
    priority: Priority
    def __init__(self, image: _Optional[bytes] = ..., graph: _Optional[_Union[SceneGraph, _Mapping]] = ..., outputs: _Optional[_Iterable[_Union[Output, str]]] = ..., top_k: _Optional[int] = ..., attribution: _Optional[_Union[AttributionOptions, _Mapping]] = ..., caption: _Optional[_Union[CaptionOptions, _Mapping]] = ..., classifier: _Optional[_Union[ModelSelector, _Mapping]] = ..., captioner: _Optional[_Union[ModelSelector, _Mapping]] = ..., request_id: _Optional[str] = ..., priority: _Optional[_Union[Priority, str]] = ...) -> None: ...

class AnalyzeStreamRequest(_message.Message):
    __slots__ = ("item_id", "request")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    request: AnalyzeRequest
    def __init__(self, item_id: _Optional[str] = ..., request: _Optional[_Union[AnalyzeRequest, _Mapping]] = ...) -> None: ...

class AnalyzeStreamResponse(_message.Message):
    __slots__ = ("item_id", "response", "error")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    response: AnalyzeResponse
    error: _status_pb2.Status
    def __init__(self, item_id: _Optional[str] = ..., response: _Optional[_Union[AnalyzeResponse, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class AnalyzeUploadRequest(_message.Message):
    __slots__ = ("header", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: UploadHeader
    chunk: bytes
    def __init__(self, header: _Optional[_Union[UploadHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class UploadHeader(_message.Message):
    __slots__ = ("request", "size_bytes", "sha256")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    request: AnalyzeRequest
    size_bytes: int
    sha256: str
    def __init__(self, request: _Optional[_Union[AnalyzeRequest, _Mapping]] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class AnalyzeUploadResponse(_message.Message):
    __slots__ = ("response",)
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    response: AnalyzeResponse
    def __init__(self, response: _Optional[_Union[AnalyzeResponse, _Mapping]] = ...) -> None: ...

class ModelSelector(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class AttributionOptions(_message.Message):
    __slots__ = ("method", "classes", "steps", "gamma", "masks", "seed", "deletion", "effects", "words", "every_word", "nodes", "word_method")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    GAMMA_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    DELETION_FIELD_NUMBER: _ClassVar[int]
    EFFECTS_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    EVERY_WORD_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    WORD_METHOD_FIELD_NUMBER: _ClassVar[int]
    method: str
    classes: _containers.RepeatedScalarFieldContainer[str]
    steps: int
    gamma: float
    masks: int
    seed: int
    deletion: bool
    effects: bool
    words: _containers.RepeatedScalarFieldContainer[int]
    every_word: bool
    nodes: _containers.RepeatedCompositeFieldContainer[GraphNode]
    word_method: str
    def __init__(self, method: _Optional[str] = ..., classes: _Optional[_Iterable[str]] = ..., steps: _Optional[int] = ..., gamma: _Optional[float] = ..., masks: _Optional[int] = ..., seed: _Optional[int] = ..., deletion: _Optional[bool] = ..., effects: _Optional[bool] = ..., words: _Optional[_Iterable[int]] = ..., every_word: _Optional[bool] = ..., nodes: _Optional[_Iterable[_Union[GraphNode, _Mapping]]] = ..., word_method: _Optional[str] = ...) -> None: ...

class CaptionOptions(_message.Message):
    __slots__ = ("beam_width", "count", "max_words", "text", "length_penalty", "sampling")
    BEAM_WIDTH_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_WORDS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LENGTH_PENALTY_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    beam_width: int
    count: int
    max_words: int
    text: str
    length_penalty: float
    sampling: Sampling
    def __init__(self, beam_width: _Optional[int] = ..., count: _Optional[int] = ..., max_words: _Optional[int] = ..., text: _Optional[str] = ..., length_penalty: _Optional[float] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ...) -> None: ...

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

class SceneGraph(_message.Message):
    __slots__ = ("objects", "relationships")
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    RELATIONSHIPS_FIELD_NUMBER: _ClassVar[int]
    objects: _containers.RepeatedCompositeFieldContainer[SceneObject]
    relationships: _containers.RepeatedCompositeFieldContainer[Relationship]
    def __init__(self, objects: _Optional[_Iterable[_Union[SceneObject, _Mapping]]] = ..., relationships: _Optional[_Iterable[_Union[Relationship, _Mapping]]] = ...) -> None: ...

class SceneObject(_message.Message):
    __slots__ = ("id", "name", "attributes", "box")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    id: int
    name: str
    attributes: _containers.RepeatedScalarFieldContainer[str]
    box: Box
    def __init__(self, id: _Optional[int] = ..., name: _Optional[str] = ..., attributes: _Optional[_Iterable[str]] = ..., box: _Optional[_Union[Box, _Mapping]] = ...) -> None: ...

class Relationship(_message.Message):
    __slots__ = ("id", "subject_id", "object_id", "name")
    ID_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    id: int
    subject_id: int
    object_id: int
    name: str
    def __init__(self, id: _Optional[int] = ..., subject_id: _Optional[int] = ..., object_id: _Optional[int] = ..., name: _Optional[str] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("x", "y", "width", "height")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    x: int
    y: int
    width: int
    height: int
    def __init__(self, x: _Optional[int] = ..., y: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class AnalyzeResponse(_message.Message):
    __slots__ = ("request_id", "image_width", "image_height", "predictions", "attributions", "captions", "graph", "graph_source", "provenance", "timings", "caption_nodes")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_WIDTH_FIELD_NUMBER: _ClassVar[int]
    IMAGE_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    CAPTIONS_FIELD_NUMBER: _ClassVar[int]
    GRAPH_FIELD_NUMBER: _ClassVar[int]
    GRAPH_SOURCE_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    CAPTION_NODES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    image_width: int
    image_height: int
    predictions: _containers.RepeatedCompositeFieldContainer[Prediction]
    attributions: _containers.RepeatedCompositeFieldContainer[Attribution]
    captions: _containers.RepeatedCompositeFieldContainer[Caption]
    graph: SceneGraph
    graph_source: GraphSource
    provenance: Provenance
    timings: _containers.RepeatedCompositeFieldContainer[StageTiming]
    caption_nodes: _containers.RepeatedCompositeFieldContainer[GraphNode]
    def __init__(self, request_id: _Optional[str] = ..., image_width: _Optional[int] = ..., image_height: _Optional[int] = ..., predictions: _Optional[_Iterable[_Union[Prediction, _Mapping]]] = ..., attributions: _Optional[_Iterable[_Union[Attribution, _Mapping]]] = ..., captions: _Optional[_Iterable[_Union[Caption, _Mapping]]] = ..., graph: _Optional[_Union[SceneGraph, _Mapping]] = ..., graph_source: _Optional[_Union[GraphSource, str]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ..., timings: _Optional[_Iterable[_Union[StageTiming, _Mapping]]] = ..., caption_nodes: _Optional[_Iterable[_Union[GraphNode, _Mapping]]] = ...) -> None: ...

class Prediction(_message.Message):
    __slots__ = ("label", "index", "probability")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    label: str
    index: int
    probability: float
    def __init__(self, label: _Optional[str] = ..., index: _Optional[int] = ..., probability: _Optional[float] = ...) -> None: ...

class Attribution(_message.Message):
    __slots__ = ("target", "method", "grid", "region", "concepts", "node_weights", "faithfulness", "concept_agreement")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    GRID_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    CONCEPTS_FIELD_NUMBER: _ClassVar[int]
    NODE_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    FAITHFULNESS_FIELD_NUMBER: _ClassVar[int]
    CONCEPT_AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    target: AttributionTarget
    method: str
    grid: Grid
    region: Region
    concepts: _containers.RepeatedCompositeFieldContainer[ConceptAttribution]
    node_weights: _containers.RepeatedScalarFieldContainer[float]
    faithfulness: _containers.RepeatedCompositeFieldContainer[Faithfulness]
    concept_agreement: float
    def __init__(self, target: _Optional[_Union[AttributionTarget, _Mapping]] = ..., method: _Optional[str] = ..., grid: _Optional[_Union[Grid, _Mapping]] = ..., region: _Optional[_Union[Region, _Mapping]] = ..., concepts: _Optional[_Iterable[_Union[ConceptAttribution, _Mapping]]] = ..., node_weights: _Optional[_Iterable[float]] = ..., faithfulness: _Optional[_Iterable[_Union[Faithfulness, _Mapping]]] = ..., concept_agreement: _Optional[float] = ...) -> None: ...

class Faithfulness(_message.Message):
    __slots__ = ("measure", "value")
    MEASURE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    measure: FaithfulnessMeasure
    value: float
    def __init__(self, measure: _Optional[_Union[FaithfulnessMeasure, str]] = ..., value: _Optional[float] = ...) -> None: ...

class AttributionTarget(_message.Message):
    __slots__ = ("class_prediction", "word", "node")
    CLASS_PREDICTION_FIELD_NUMBER: _ClassVar[int]
    WORD_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    class_prediction: Prediction
    word: WordTarget
    node: GraphNode
    def __init__(self, class_prediction: _Optional[_Union[Prediction, _Mapping]] = ..., word: _Optional[_Union[WordTarget, _Mapping]] = ..., node: _Optional[_Union[GraphNode, _Mapping]] = ...) -> None: ...

class WordTarget(_message.Message):
    __slots__ = ("index", "text")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    index: int
    text: str
    def __init__(self, index: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class Grid(_message.Message):
    __slots__ = ("height", "width", "values")
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    height: int
    width: int
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, height: _Optional[int] = ..., width: _Optional[int] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class Region(_message.Message):
    __slots__ = ("x", "y", "width", "height")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    width: float
    height: float
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ..., width: _Optional[float] = ..., height: _Optional[float] = ...) -> None: ...

class GraphNode(_message.Message):
    __slots__ = ("kind", "id", "attribute_index", "name")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_INDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    kind: NodeKind
    id: int
    attribute_index: int
    name: str
    def __init__(self, kind: _Optional[_Union[NodeKind, str]] = ..., id: _Optional[int] = ..., attribute_index: _Optional[int] = ..., name: _Optional[str] = ...) -> None: ...

class ConceptAttribution(_message.Message):
    __slots__ = ("node", "mass", "density", "effect", "effect_definition", "score", "score_definition", "gap_mass", "weaker_mass")
    NODE_FIELD_NUMBER: _ClassVar[int]
    MASS_FIELD_NUMBER: _ClassVar[int]
    DENSITY_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    EFFECT_DEFINITION_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SCORE_DEFINITION_FIELD_NUMBER: _ClassVar[int]
    GAP_MASS_FIELD_NUMBER: _ClassVar[int]
    WEAKER_MASS_FIELD_NUMBER: _ClassVar[int]
    node: GraphNode
    mass: float
    density: float
    effect: float
    effect_definition: str
    score: float
    score_definition: ScoreDefinition
    gap_mass: float
    weaker_mass: float
    def __init__(self, node: _Optional[_Union[GraphNode, _Mapping]] = ..., mass: _Optional[float] = ..., density: _Optional[float] = ..., effect: _Optional[float] = ..., effect_definition: _Optional[str] = ..., score: _Optional[float] = ..., score_definition: _Optional[_Union[ScoreDefinition, str]] = ..., gap_mass: _Optional[float] = ..., weaker_mass: _Optional[float] = ...) -> None: ...

class Caption(_message.Message):
    __slots__ = ("text", "words", "log_probability")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    text: str
    words: _containers.RepeatedCompositeFieldContainer[CaptionWord]
    log_probability: float
    def __init__(self, text: _Optional[str] = ..., words: _Optional[_Iterable[_Union[CaptionWord, _Mapping]]] = ..., log_probability: _Optional[float] = ...) -> None: ...

class CaptionWord(_message.Message):
    __slots__ = ("text", "log_probability", "node_weights")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    NODE_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    text: str
    log_probability: float
    node_weights: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, text: _Optional[str] = ..., log_probability: _Optional[float] = ..., node_weights: _Optional[_Iterable[float]] = ...) -> None: ...

class Provenance(_message.Message):
    __slots__ = ("classifier", "captioner", "image_sha256", "software_version", "backend", "cached")
    CLASSIFIER_FIELD_NUMBER: _ClassVar[int]
    CAPTIONER_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SHA256_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_VERSION_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    classifier: ModelProvenance
    captioner: ModelProvenance
    image_sha256: str
    software_version: str
    backend: str
    cached: bool
    def __init__(self, classifier: _Optional[_Union[ModelProvenance, _Mapping]] = ..., captioner: _Optional[_Union[ModelProvenance, _Mapping]] = ..., image_sha256: _Optional[str] = ..., software_version: _Optional[str] = ..., backend: _Optional[str] = ..., cached: _Optional[bool] = ...) -> None: ...

class ModelProvenance(_message.Message):
    __slots__ = ("name", "version", "archive_sha256", "parameters")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_SHA256_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    archive_sha256: str
    parameters: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., archive_sha256: _Optional[str] = ..., parameters: _Optional[_Mapping[str, str]] = ...) -> None: ...

class StageTiming(_message.Message):
    __slots__ = ("stage", "milliseconds")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    stage: str
    milliseconds: float
    def __init__(self, stage: _Optional[str] = ..., milliseconds: _Optional[float] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "kind", "archive_sha256", "input_size", "classes", "vocabulary_size", "attribution_methods", "limits", "card_json", "ready", "max_nodes", "execution", "decode_scales", "decode_margin")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_SHA256_FIELD_NUMBER: _ClassVar[int]
    INPUT_SIZE_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_SIZE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_METHODS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    CARD_JSON_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    MAX_NODES_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    DECODE_SCALES_FIELD_NUMBER: _ClassVar[int]
    DECODE_MARGIN_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    kind: ModelKind
    archive_sha256: str
    input_size: int
    classes: _containers.RepeatedScalarFieldContainer[str]
    vocabulary_size: int
    attribution_methods: _containers.RepeatedCompositeFieldContainer[AttributionMethod]
    limits: Limits
    card_json: str
    ready: bool
    max_nodes: int
    execution: Execution
    decode_scales: _containers.RepeatedScalarFieldContainer[int]
    decode_margin: float
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., kind: _Optional[_Union[ModelKind, str]] = ..., archive_sha256: _Optional[str] = ..., input_size: _Optional[int] = ..., classes: _Optional[_Iterable[str]] = ..., vocabulary_size: _Optional[int] = ..., attribution_methods: _Optional[_Iterable[_Union[AttributionMethod, _Mapping]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., card_json: _Optional[str] = ..., ready: _Optional[bool] = ..., max_nodes: _Optional[int] = ..., execution: _Optional[_Union[Execution, _Mapping]] = ..., decode_scales: _Optional[_Iterable[int]] = ..., decode_margin: _Optional[float] = ...) -> None: ...

class Execution(_message.Message):
    __slots__ = ("runtime", "precision", "refused")
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    runtime: str
    precision: str
    refused: str
    def __init__(self, runtime: _Optional[str] = ..., precision: _Optional[str] = ..., refused: _Optional[str] = ...) -> None: ...

class AttributionMethod(_message.Message):
    __slots__ = ("name", "cost_forwards", "reference", "targets")
    NAME_FIELD_NUMBER: _ClassVar[int]
    COST_FORWARDS_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    name: str
    cost_forwards: float
    reference: str
    targets: _containers.RepeatedScalarFieldContainer[TargetKind]
    def __init__(self, name: _Optional[str] = ..., cost_forwards: _Optional[float] = ..., reference: _Optional[str] = ..., targets: _Optional[_Iterable[_Union[TargetKind, str]]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_image_bytes", "max_image_pixels", "max_graph_nodes", "max_targets", "max_beam_width", "max_cost_forwards", "max_message_bytes", "max_upload_bytes", "max_stream_in_flight", "max_top_k", "max_steps", "max_masks", "max_words", "max_request_id")
    MAX_IMAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MAX_GRAPH_NODES_FIELD_NUMBER: _ClassVar[int]
    MAX_TARGETS_FIELD_NUMBER: _ClassVar[int]
    MAX_BEAM_WIDTH_FIELD_NUMBER: _ClassVar[int]
    MAX_COST_FORWARDS_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_UPLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_STREAM_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_TOP_K_FIELD_NUMBER: _ClassVar[int]
    MAX_STEPS_FIELD_NUMBER: _ClassVar[int]
    MAX_MASKS_FIELD_NUMBER: _ClassVar[int]
    MAX_WORDS_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    max_image_bytes: int
    max_image_pixels: int
    max_graph_nodes: int
    max_targets: int
    max_beam_width: int
    max_cost_forwards: int
    max_message_bytes: int
    max_upload_bytes: int
    max_stream_in_flight: int
    max_top_k: int
    max_steps: int
    max_masks: int
    max_words: int
    max_request_id: int
    def __init__(self, max_image_bytes: _Optional[int] = ..., max_image_pixels: _Optional[int] = ..., max_graph_nodes: _Optional[int] = ..., max_targets: _Optional[int] = ..., max_beam_width: _Optional[int] = ..., max_cost_forwards: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., max_upload_bytes: _Optional[int] = ..., max_stream_in_flight: _Optional[int] = ..., max_top_k: _Optional[int] = ..., max_steps: _Optional[int] = ..., max_masks: _Optional[int] = ..., max_words: _Optional[int] = ..., max_request_id: _Optional[int] = ...) -> None: ...
