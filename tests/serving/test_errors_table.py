"""Every error has its row, and its details say what they should."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2

import saaa.archive  # noqa: F401 - defines no errors of its own; if it ever does, they are walked too
from saaa import errors
from saaa.errors import LaneFull, RetryLater, SaaaError
from serving.errors import code_of, to_status
from serving.requests import RequestInvalid

CODE = grpc.StatusCode


def all_errors(root: type[SaaaError] = SaaaError) -> Iterator[type[SaaaError]]:
    for kind in root.__subclasses__():
        yield kind
        yield from all_errors(kind)


def make(kind: type[SaaaError]) -> SaaaError:
    if issubclass(kind, RetryLater):
        return kind("full", retry_after_s=1.5)
    if kind is RequestInvalid:
        return RequestInvalid([errors.OptionInvalid("a", field="x"), errors.ImageRejected("b", field="y")])
    return kind("what", field="where")


@pytest.mark.parametrize("kind", sorted(set(all_errors()), key=lambda kind: kind.__name__))
def test_every_error_is_mapped(kind: type[SaaaError]) -> None:
    code = code_of(kind)
    assert code not in (CODE.OK, CODE.UNKNOWN)
    status = to_status(make(kind))
    assert status.code == code.value[0]
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == (make(kind).reason, "saaa")


def test_the_root_itself_has_no_row_so_that_a_new_branch_is_noticed() -> None:
    with pytest.raises(KeyError):
        code_of(SaaaError)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.ImageRejected, CODE.INVALID_ARGUMENT),
        (errors.SceneGraphError, CODE.INVALID_ARGUMENT),
        (errors.OptionInvalid, CODE.INVALID_ARGUMENT),
        (RequestInvalid, CODE.INVALID_ARGUMENT),
        (errors.ModelNotFound, CODE.NOT_FOUND),
        (errors.LaneFull, CODE.RESOURCE_EXHAUSTED),
        (errors.CallerLimited, CODE.RESOURCE_EXHAUSTED),
        (errors.Unauthenticated, CODE.UNAUTHENTICATED),
        (errors.NotPermitted, CODE.PERMISSION_DENIED),
        (errors.DeadlineExceeded, CODE.DEADLINE_EXCEEDED),
        (errors.BackendUnavailable, CODE.UNAVAILABLE),
        (errors.BackendFailed, CODE.INTERNAL),
    ],
)
def test_codes_that_the_contract_promises(kind: type[SaaaError], code: grpc.StatusCode) -> None:
    assert code_of(kind) is code


def test_violations_are_listed_each_with_its_field() -> None:
    status = to_status(make(RequestInvalid))
    bad = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad)
    assert [(entry.field, entry.description, entry.reason) for entry in bad.field_violations] == [
        ("x", "a", "OPTION_INVALID"),
        ("y", "b", "IMAGE_REJECTED"),
    ]
    assert status.message == "x: a. y: b."


@pytest.mark.parametrize("kind", [LaneFull, errors.CallerLimited])
def test_who_may_come_back_is_told_when(kind: type[SaaaError]) -> None:
    status = to_status(make(kind))
    retry = error_details_pb2.RetryInfo()
    assert status.details[-1].Unpack(retry)
    assert retry.retry_delay.ToTimedelta().total_seconds() == pytest.approx(1.5)
