"""The few calls of Label Studio's API that we need."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

TIMEOUT_S = 120.0
_PAGE = 500
_SHOWN = 300


class Unreachable(Exception):
    """Nothing answers."""


class Refused(Exception):
    """The server answered something else than was asked for."""


class StudioClient:
    """Label Studio's API as one user.

    Args:
        url: of the server, without a path.
        token: the user's legacy token.

    Raises:
        Unreachable, Refused: from any method.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._token = token
        self._opener = build_opener(ProxyHandler({}))  # loopback is no proxy's business

    def who(self) -> str:
        """The user's address."""
        return str(self.call("GET", "/api/current-user/whoami")["email"])

    def find(self, title: str) -> int | None:
        """The id of the project of that title, or None."""
        found = self.call("GET", f"/api/projects/?{urlencode({'title': title, 'page_size': 100})}")["results"]
        return next((int(project["id"]) for project in found if project["title"] == title), None)

    def create(self, title: str, labels: str) -> int:
        """Make a project and return its id; `labels` is its labeling configuration, XML."""
        return int(self.call("POST", "/api/projects/", {"title": title, "label_config": labels})["id"])

    def show_pictures(self, project: int, folder: str) -> None:
        """Let a project show the pictures of a folder; absolute path, below the server's root for them."""
        for storage in self.call("GET", f"/api/storages/localfiles/?project={project}"):
            if storage["path"] == folder:
                return
        told = {"project": project, "title": "pictures", "path": folder, "use_blob_urls": True}
        self.call("POST", "/api/storages/localfiles/", told)

    def tasks(self, project: int) -> Iterator[dict[str, Any]]:
        """All tasks of a project."""
        page, seen = 1, 0
        while True:
            query = urlencode({"project": project, "fields": "task_only", "page": page, "page_size": _PAGE})
            answer = self.call("GET", f"/api/tasks?{query}")
            yield from answer["tasks"]
            seen += len(answer["tasks"])
            if seen >= answer["total"] or not answer["tasks"]:
                return
            page += 1

    def add(self, project: int, tasks: Sequence[dict[str, Any]]) -> None:
        """Add tasks to a project, all or none."""
        self.call("POST", f"/api/projects/{project}/import", list(tasks))

    def export(self, project: int) -> list[dict[str, Any]]:
        """All tasks of a project that have an answer, with their answers, as Label Studio's JSON export."""
        found = self.call("GET", f"/api/projects/{project}/export?exportType=JSON&download_all_tasks=false")
        if not isinstance(found, list):
            raise Refused("the export is no list of tasks")
        return found

    def call(self, method: str, path: str, content: Any = None) -> Any:
        """One request, JSON both ways."""
        request = Request(
            f"{self.url}{path}",
            method=method,
            data=None if content is None else json.dumps(content).encode(),
            headers={"Authorization": f"Token {self._token}", "Content-Type": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                return json.loads(answer.read() or b"null")
        except HTTPError as error:
            with error:
                text = " ".join(error.read(4 * _SHOWN).decode(errors="replace").split())[:_SHOWN]
            raise Refused(f"{method} {path}: {error.code} {text}") from error
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{method} {path}: {error}") from error
        except ValueError as error:
            raise Refused(f"{method} {path}: its answer is no JSON") from error
