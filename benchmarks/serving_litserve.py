"""The model in LitServe, for `benchmarks.serving`; runs in its environment."""

from __future__ import annotations

import json
from typing import Any

import litserve

from benchmarks.serving_model import Model, told


class Api(litserve.LitAPI):
    """Multipart field "image" in, JSON out."""

    def __init__(self, archive: str, threads: int, batch: int) -> None:
        super().__init__(max_batch_size=batch, batch_timeout=0.005 if batch > 1 else 0.0)
        self._archive, self._threads, self._size = archive, threads, batch

    def setup(self, device: str) -> None:
        """Load the model."""
        self.model = Model(self._archive, self._threads)

    def decode_request(self, request):  # type: ignore[no-untyped-def]
        """The file's bytes; LitServe reads the annotation, and none means that it gives the form."""
        content: bytes = request["image"].file.read()
        return content

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """Files stay a list."""
        return inputs

    def predict(self, x: Any) -> list[bytes]:
        """One file, or the files of a batch."""
        return self.model.answers(x if isinstance(x, list) else [x])

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        """An answer each."""
        return output

    def encode_response(self, output: Any) -> Any:
        """JSON."""
        return json.loads(output[0] if isinstance(output, list) else output)


def main() -> None:
    """Serve until killed."""
    options = told()
    api = Api(options.archive, options.threads, options.batch)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=options.workers, timeout=600)
    server.run(host="127.0.0.1", port=options.ports[0], generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
