import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from saaa.v1 import analysis_pb2 as _analysis_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RecordRatingRequest(_message.Message):
    __slots__ = ("request_id", "annotator", "about", "relevance", "human_graph", "consented_image")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ANNOTATOR_FIELD_NUMBER: _ClassVar[int]
    ABOUT_FIELD_NUMBER: _ClassVar[int]
    RELEVANCE_FIELD_NUMBER: _ClassVar[int]
    HUMAN_GRAPH_FIELD_NUMBER: _ClassVar[int]
    CONSENTED_IMAGE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    annotator: str
    about: RatedAnalysis
    relevance: RelevanceRating
    human_graph: _analysis_pb2.SceneGraph
    consented_image: bytes
    def __init__(self, request_id: _Optional[str] = ..., annotator: _Optional[str] = ..., about: _Optional[_Union[RatedAnalysis, _Mapping]] = ..., relevance: _Optional[_Union[RelevanceRating, _Mapping]] = ..., human_graph: _Optional[_Union[_analysis_pb2.SceneGraph, _Mapping]] = ..., consented_image: _Optional[bytes] = ...) -> None: ...

class RatedAnalysis(_message.Message):
    __slots__ = ("provenance", "image_width", "image_height", "attribution", "graph", "graph_source", "caption")
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_WIDTH_FIELD_NUMBER: _ClassVar[int]
    IMAGE_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    GRAPH_FIELD_NUMBER: _ClassVar[int]
    GRAPH_SOURCE_FIELD_NUMBER: _ClassVar[int]
    CAPTION_FIELD_NUMBER: _ClassVar[int]
    provenance: _analysis_pb2.Provenance
    image_width: int
    image_height: int
    attribution: _analysis_pb2.Attribution
    graph: _analysis_pb2.SceneGraph
    graph_source: _analysis_pb2.GraphSource
    caption: str
    def __init__(self, provenance: _Optional[_Union[_analysis_pb2.Provenance, _Mapping]] = ..., image_width: _Optional[int] = ..., image_height: _Optional[int] = ..., attribution: _Optional[_Union[_analysis_pb2.Attribution, _Mapping]] = ..., graph: _Optional[_Union[_analysis_pb2.SceneGraph, _Mapping]] = ..., graph_source: _Optional[_Union[_analysis_pb2.GraphSource, str]] = ..., caption: _Optional[str] = ...) -> None: ...

class RelevanceRating(_message.Message):
    __slots__ = ("content_type", "content_description", "relevance")
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    RELEVANCE_FIELD_NUMBER: _ClassVar[int]
    content_type: _analysis_pb2.NodeKind
    content_description: str
    relevance: float
    def __init__(self, content_type: _Optional[_Union[_analysis_pb2.NodeKind, str]] = ..., content_description: _Optional[str] = ..., relevance: _Optional[float] = ...) -> None: ...

class RecordRatingResponse(_message.Message):
    __slots__ = ("request_id", "recorded_at")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RECORDED_AT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    recorded_at: _timestamp_pb2.Timestamp
    def __init__(self, request_id: _Optional[str] = ..., recorded_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
