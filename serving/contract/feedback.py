"""The methods of `saaa.v1.FeedbackService`: read and check, keep, answer."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from saaa.errors import DeadlineExceeded, NotEnabled
from saaa.v1 import feedback_pb2 as pb
from saaa.v1 import feedback_pb2_grpc
from serving.contract.rating_requests import read_rating
from serving.observer import Observer
from serving.ratings.store import RatingStore
from serving.settings import FacadeSettings

FEEDBACK_NAME: str = pb.DESCRIPTOR.services_by_name["FeedbackService"].full_name
"""The service's full name, as health and reflection know it."""

Context = grpc.aio.ServicerContext[Any, Any]


class FeedbackService(feedback_pb2_grpc.FeedbackServiceServicer):
    """The contract edge.

    Args:
        store: keeps the ratings; None answers that none are kept.
        settings: limits and deadlines.
        observer: told of what was kept.
    """

    def __init__(self, store: RatingStore | None, settings: FacadeSettings, observer: Observer) -> None:
        self._store = store
        self._settings = settings
        self._observer = observer

    async def RecordRating(self, request: pb.RecordRatingRequest, context: Context) -> pb.RecordRatingResponse:  # noqa: N802
        """Keep one rating."""
        if self._store is None:
            raise NotEnabled("This service keeps no ratings; its operator can start it with --ratings FILE.db.")
        # Maps and images may be large: digest and decimals are not the event loop's to make.
        rating = await asyncio.to_thread(read_rating, request, self._settings.limits)
        try:
            async with asyncio.timeout(self._settings.max_deadline_s):
                kept = await self._store.record(rating)
        except TimeoutError:
            text = "The rating was not written in time, and may be yet; send the same request again."
            raise DeadlineExceeded(text) from None
        if kept.new:
            self._observer.rated(request.relevance.relevance if request.HasField("relevance") else None)
        response = pb.RecordRatingResponse(request_id=rating.request_id)
        response.recorded_at.FromJsonString(kept.recorded_at)
        return response
