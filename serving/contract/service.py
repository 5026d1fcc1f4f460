"""The methods of `saaa.v1.AnalysisService`: convert in, call the analysis, convert out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc

from saaa.v1 import analysis_pb2 as pb
from saaa.v1 import analysis_pb2_grpc
from serving.analysis.analysis import Analysis
from serving.contract.accepting import accept
from serving.contract.convert import read_analyze_request, write_analysis, write_limits, write_model
from serving.contract.stream import answer_stream
from serving.contract.upload import Uploads
from serving.interceptors.base import current_call
from serving.models.catalog import Catalog
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
        stopping: done when the service stops: streams are read no further.
    """

    def __init__(
        self, analysis: Analysis, catalog: Catalog, settings: FacadeSettings, stopping: asyncio.Future[None]
    ) -> None:
        self._analysis = analysis
        self._catalog = catalog
        self._settings = settings
        self._limits = write_limits(settings)
        self._stopping = stopping
        self._uploads = Uploads(settings)

    async def Analyze(self, request: pb.AnalyzeRequest, context: Context) -> pb.AnalyzeResponse:  # noqa: N802
        """One image, as asked for."""
        asked = read_analyze_request(request, self._settings.limits, request_id=_request_id())
        return write_analysis(await self._analysis.analyze(asked, self._settings.timeout(context.time_remaining())))

    async def AnalyzeStream(  # noqa: N802
        self, requests: AsyncIterator[pb.AnalyzeStreamRequest], context: Context
    ) -> None:
        """Many images, each answer as soon as it is there."""
        await answer_stream(requests, context, self._analysis, self._settings, self._stopping)

    async def AnalyzeUpload(  # noqa: N802
        self, requests: AsyncIterator[pb.AnalyzeUploadRequest], context: Context
    ) -> pb.AnalyzeUploadResponse:
        """One image in pieces."""
        timeout, limits = self._settings.timeout, self._settings.limits
        time_left = timeout(context.time_remaining())
        async with self._uploads.take(requests, time_left, partial(accept, context)) as (header, image):
            asked = read_analyze_request(header.request, limits, request_id=_request_id(), uploaded=image)
            result = await self._analysis.analyze(asked, timeout(context.time_remaining()))
        return pb.AnalyzeUploadResponse(response=write_analysis(result))

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:  # noqa: N802
        """Every served model."""
        self._catalog.require_known()
        return pb.ListModelsResponse(
            models=[
                write_model(info, self._limits, ready=self._catalog.is_ready(info)) for info in self._catalog.models
            ]
        )

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:  # noqa: N802
        """One served model."""
        self._catalog.require_known()
        info = self._catalog.find(request.name, request.version)
        return pb.GetModelResponse(model=write_model(info, self._limits, ready=self._catalog.is_ready(info)))


def _request_id() -> str:
    call = current_call()
    return call.request_id if call else ""
