"""The model in BentoML, for `benchmarks.serving`; runs in its environment."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import bentoml

from benchmarks.serving_model import Model, told

ARCHIVE, THREADS, WORKERS = "SERVING_ARCHIVE", "SERVING_THREADS", "SERVING_WORKERS"


@bentoml.service(workers=int(os.environ.get(WORKERS, "1")), traffic={"timeout": 600})
class Service:
    """Multipart field "image" in, JSON out."""

    def __init__(self) -> None:
        self.model = Model(os.environ[ARCHIVE], int(os.environ[THREADS]))

    @bentoml.api
    def classify(self, image: Path) -> dict[str, Any]:
        """Class probabilities."""
        answer: dict[str, Any] = json.loads(self.model.answers([image.read_bytes()])[0])
        return answer


def main() -> None:
    """Become `bentoml serve`."""
    options = told()
    os.environ |= {
        ARCHIVE: str(Path(options.archive).resolve()),
        THREADS: str(options.threads),
        WORKERS: str(options.workers),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(Path(options.folder).resolve() / "bentoml"),
    }
    program = str(Path(sys.executable).parent / "bentoml")
    what = "benchmarks.serving_bentoml:Service"
    os.execv(program, [program, "serve", what, "--host", "127.0.0.1", "--port", str(options.ports[0]), "-q"])


if __name__ == "__main__":
    main()
