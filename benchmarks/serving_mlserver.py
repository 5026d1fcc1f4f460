"""The model in MLServer, for `benchmarks.serving`; runs in its environment."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

from benchmarks.serving_model import Model, told


class Runtime(MLModel):  # type: ignore[misc, unused-ignore]
    """Open Inference Protocol: BYTES [n, 1] of JPEGs in, BYTES [n, 1] of JSON out."""

    async def load(self) -> bool:
        """Load the model."""
        extra = self.settings.parameters.extra
        self.model = Model(extra["archive"], extra["threads"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer all images by one forward."""
        answers = self.model.answers(list(payload.inputs[0].data))
        output = ResponseOutput(name="answer", datatype="BYTES", shape=[len(answers), 1], data=answers)
        return InferenceResponse(model_name=self.name, outputs=[output])


def main() -> None:
    """Write its settings and become `mlserver start`."""
    options = told()
    folder = Path(options.folder) / "mlserver"
    folder.mkdir(parents=True, exist_ok=True)
    grpc_port, http_port, metrics_port = options.ports
    settings = {
        "host": "127.0.0.1",
        "http_port": http_port,
        "grpc_port": grpc_port,
        "metrics_port": metrics_port,
        "parallel_workers": options.workers if options.workers > 1 else 0,
        "debug": False,
        "grpc_max_message_length": 32 * 2**20,
    }
    model = {
        "name": "bench",
        "implementation": "benchmarks.serving_mlserver.Runtime",
        "max_batch_size": options.batch if options.batch > 1 else 0,
        "max_batch_time": 0.005 if options.batch > 1 else 0,
        "parameters": {"extra": {"archive": str(Path(options.archive).resolve()), "threads": options.threads}},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    program = str(Path(sys.executable).parent / "mlserver")
    os.execv(program, [program, "start", str(folder)])


if __name__ == "__main__":
    main()
