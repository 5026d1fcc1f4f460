"""What both handlers share: a packed batch or a REST body in, bytes or JSON out, and no exception ever.

The facade sends one packed batch a request (`saaa.wire`). Anybody else may send a picture to TorchServe's
REST port and gets JSON. TorchServe turns an exception into "Prediction failed" for the whole batch, and kills
a worker whose answer is too large, so both are answered in words here.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers.traces import traced
from saaa import wire
from saaa.errors import ImageRejected, InvalidInput, SaaaError
from saaa.fitting import Picture
from saaa.runtime.executor import Executor, item_error
from saaa.work import ItemError, ItemResult, Work, WorkBatch, WorkItem

RESPONSE_LIMIT_VARIABLE = "SAAA_MAX_RESPONSE_BYTES"
"""Environment variable with TorchServe's `max_response_size`."""
NICE_VARIABLE = "SAAA_WORKER_NICE"
"""Environment variable with what is added to a worker's niceness."""
DEFAULT_RESPONSE_LIMIT = 6_553_500
"""TorchServe's own default."""
LOAD_FAILED = "saaa cannot load the model: "
"""Begins the log line from which the owner of TorchServe learns why a worker does not start."""

Form = Mapping[str, Any]
"""The fields of one REST request; a request without fields has one, "body" or "data"."""

_log = logging.getLogger(__name__)


class Handler(ABC):
    """TorchServe creates one in each worker, and calls `initialize` once and `handle` for every request."""

    def initialize(self, context: Any) -> None:
        """Load the unpacked archive and warm up, so that a worker that is READY answers fast."""
        # One thread unless told otherwise: TorchServe starts a worker for each core.
        threads = int(os.environ.get("OMP_NUM_THREADS") or 1)
        self._limit = int(os.environ.get(RESPONSE_LIMIT_VARIABLE) or DEFAULT_RESPONSE_LIMIT)
        if nice := os.environ.get(NICE_VARIABLE):
            os.nice(int(nice))
        try:
            self.executor = Executor.open(context.system_properties["model_dir"], threads=threads)
            if (execution := self.executor.info.execution) and execution.refused:
                _log.warning("the model runs on %s: %s", execution.runtime, execution.refused)
            self.executor.warm_up()
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            _log.error("%s%s", LOAD_FAILED, reason)
            raise

    def handle(self, data: list[Form], context: Any) -> list[bytes | str]:
        """Answer each request of `data`, in order."""
        return [self._answer(form, index, context) for index, form in enumerate(data)]

    def _answer(self, form: Form, index: int, context: Any) -> bytes | str:
        packed = wire.HEADER_KEY in form and wire.PIXELS_KEY in form
        answer = self._packed(form) if packed else self._json(form, index, context)
        if len(answer) <= self._limit:
            return answer
        message = f"The answer has {len(answer)} bytes; at most {self._limit} can be sent. Ask for fewer at once."
        error = ItemError(reason="BACKEND_FAILED", message=message)
        return wire.pack_failure(error) if packed else self._refusal(error, 413, index, context)

    def _packed(self, form: Form) -> bytes:
        try:
            batch = wire.unpack_batch(form[wire.HEADER_KEY], form[wire.PIXELS_KEY])
            if batch is None:
                return wire.pack_description(self.executor.info)
            with traced(form[wire.HEADER_KEY], batch) as part:
                with part("compute"):
                    results = self.executor.run(batch)
                with part("pack"):
                    return wire.pack_results(results)
        except Exception as error:
            return wire.pack_failure(item_error(error))

    def _json(self, form: Form, index: int, context: Any) -> bytes:
        try:
            body = self.respond(form)
        except Exception as error:
            code = 400 if isinstance(error, InvalidInput) else 500
            return self._refusal(item_error(error), code, index, context)
        context.set_response_content_type(index, "application/json")
        return json.dumps(body).encode()

    @staticmethod
    def _refusal(error: ItemError, code: int, index: int, context: Any) -> bytes:
        context.set_response_content_type(index, "application/json")
        context.set_response_status(code=code, phrase=error.reason, idx=index)
        body = {"error": {"reason": error.reason, "message": error.message, "field": error.field}}
        return json.dumps(body).encode()

    @abstractmethod
    def respond(self, form: Form) -> dict[str, Any]:
        """Answer one REST request with a JSON object; raises `SaaaError`."""

    def model(self) -> dict[str, str]:
        """Say which model answers."""
        info = self.executor.info
        return {"name": info.name, "version": info.version, "digest": info.digest}

    def run_one(self, pixels: NDArray[np.uint8], work: Work, item: WorkItem) -> ItemResult:
        """Run a batch of one; raises `Refused` with the item's error."""
        info = self.executor.info
        batch = WorkBatch(model=info.name, version=info.version, work=work, pixels=pixels[None], items=(item,))
        (result,) = self.executor.run(batch)
        if result.error is not None:
            raise _as_exception(result.error)
        return result


def picture(form: Form) -> Picture:
    """Find the picture of a REST request: the body itself, or the field "image" or "data".

    Bytes are the file; text is the file in base64.

    Raises:
        ImageRejected: no picture, or not one that saaa accepts.
    """
    for name in ("image", "data", "body"):
        value = form.get(name)
        if isinstance(value, str):
            try:
                value = base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                raise ImageRejected(f"Field {name} is not base64.", field=name) from None
        if isinstance(value, bytes | bytearray):
            return Picture(bytes(value))
    raise ImageRejected('Send a picture as the body, or as the field "image".', field="image")


def fields(form: Form) -> Form:
    """Give the fields of a request: those of a JSON body where there is one."""
    body = form.get("body")
    return body if isinstance(body, dict) else form


def _as_exception(error: ItemError) -> SaaaError:
    kind = SaaaError if error.reason == "INTERNAL" else InvalidInput
    return kind(error.message, field=error.field)
