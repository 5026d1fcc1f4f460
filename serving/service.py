"""The methods of `saaa.v1.AnalysisService`: convert in, call the analysis, convert out."""

from __future__ import annotations

from typing import Any

import grpc

from saaa.v1 import analysis_pb2 as pb
from saaa.v1 import analysis_pb2_grpc
from serving.analysis import Analysis
from serving.catalog import Catalog
from serving.convert import read_analyze_request, write_analysis, write_model
from serving.settings import FacadeSettings

SERVICE_NAME: str = pb.DESCRIPTOR.services_by_name["AnalysisService"].full_name
"""The service's full name, as health and reflection know it."""

Context = grpc.aio.ServicerContext[Any, Any]


class AnalysisService(analysis_pb2_grpc.AnalysisServiceServicer):
    """The contract edge.

    Args:
        analysis: answers requests.
        catalog: the served models.
        settings: limits and deadlines.
    """

    def __init__(self, analysis: Analysis, catalog: Catalog, settings: FacadeSettings) -> None:
        self._analysis = analysis
        self._catalog = catalog
        self._settings = settings

    async def Analyze(self, request: pb.AnalyzeRequest, context: Context) -> pb.AnalyzeResponse:  # noqa: N802
        """One image, as asked for."""
        asked = read_analyze_request(request, self._settings.limits)
        return write_analysis(await self._analysis.analyze(asked, self._timeout(context)))

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:  # noqa: N802
        """Every served model."""
        self._catalog.require_known()
        return pb.ListModelsResponse(
            models=[
                write_model(info, self._settings.limits, ready=self._catalog.is_ready(info))
                for info in self._catalog.models
            ]
        )

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:  # noqa: N802
        """One served model."""
        self._catalog.require_known()
        info = self._catalog.find(request.name, request.version)
        ready = self._catalog.is_ready(info)
        return pb.GetModelResponse(model=write_model(info, self._settings.limits, ready=ready))

    def _timeout(self, context: Context) -> float:
        remaining = context.time_remaining()
        if remaining is None:
            return self._settings.default_deadline_s
        return min(remaining, self._settings.max_deadline_s)
