"""The model behind a bare grpc.aio server, for `benchmarks.serving`: bytes in, bytes out, a thread pool."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import grpc

from benchmarks.serving_model import Model, told


async def main() -> None:
    """Serve until killed."""
    options = told()
    model = Model(options.archive, options.threads)
    workers = ThreadPoolExecutor(options.workers)

    async def classify(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return (await asyncio.get_running_loop().run_in_executor(workers, model.answers, [request]))[0]

    server = grpc.aio.server()
    handlers = {"Classify": grpc.unary_unary_rpc_method_handler(classify)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Model", handlers),))
    server.add_insecure_port(f"127.0.0.1:{options.ports[0]}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
