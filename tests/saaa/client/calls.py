"""A graph to send, and one call by either client."""

from __future__ import annotations

from saaa.client import AsyncClient, Client

GRAPH = {
    "objects": [
        {"object_id": 7, "name": "lamp", "attributes": ["red"], "x": 1, "y": 2, "w": 30, "h": 40},
        {"object_id": 9, "name": "table", "attributes": [], "x": 0, "y": 100, "w": 300, "h": 200},
    ],
    "relationships": [{"relationship_id": 1, "subject_id": 7, "object_id": 9, "name": "on"}],
    "phrase": "ignored",
}


async def call(kind: str, address: str, method: str, *arguments):
    if kind == "sync":
        with Client(address) as client:
            return getattr(client, method)(*arguments)
    async with AsyncClient(address) as client:
        return await getattr(client, method)(*arguments)
