"""Every method that is served has its row; what has none is refused."""

from __future__ import annotations

import grpc
import pytest

from saaa.errors import NotPermitted
from serving.security.scopes import METHODS, Scope, check, is_open, read_scopes
from tests.serving.security.secured import secured


async def test_every_served_method_has_a_row_and_every_row_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    served: set[str] = set()
    make = grpc.aio.server

    def noting(*arguments: object, **options: object) -> grpc.aio.Server:
        server = make(*arguments, **options)  # type: ignore[arg-type]
        add = server.add_generic_rpc_handlers

        def note(handlers: object) -> None:
            for handler in handlers:  # type: ignore[attr-defined]
                served.update(handler._method_handlers)
            add(handlers)  # type: ignore[arg-type]

        server.add_generic_rpc_handlers = note  # type: ignore[method-assign]
        return server

    monkeypatch.setattr(grpc.aio, "server", noting)
    async with secured():
        pass
    assert served == set(METHODS)


def test_only_what_orchestrators_ask_is_open() -> None:
    assert {method.rpartition("/")[2] for method in METHODS if is_open(method)} == {
        "Check",
        "Watch",
        "ServerLive",
        "ServerReady",
        "ModelReady",
    }
    for method in METHODS:
        if is_open(method):
            check(method, [])


@pytest.mark.parametrize(
    ("method", "suffice"),
    [
        ("/saaa.v1.AnalysisService/Analyze", {"analyze"}),
        ("/saaa.v1.AnalysisService/ListModels", {"analyze", "models"}),
        ("/saaa.v1.FeedbackService/RecordRating", {"feedback"}),
        ("/inference.GRPCInferenceService/ModelInfer", {"analyze"}),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", {"analyze", "models"}),
        ("/saaa.v1.AnalysisService/Unheard", set()),
    ],
)
def test_one_scope_of_the_row_suffices_and_no_other(method: str, suffice: set[str]) -> None:
    for scope in Scope:
        if scope.value in suffice:
            check(method, [scope])
        else:
            with pytest.raises(NotPermitted):
                check(method, [scope])
    others = [scope for scope in Scope if scope.value not in suffice]
    with pytest.raises(NotPermitted):
        check(method, others)


def test_unknown_scopes_mean_nothing() -> None:
    assert read_scopes(["analyze", "admin", "", "ANALYZE"]) == {Scope.ANALYZE}
