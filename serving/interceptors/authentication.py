"""Names the caller of every call, and refuses those who may not make it, before their message is read."""

from __future__ import annotations

import logging

from saaa.errors import SaaaError
from serving.interceptors.base import Call, CallInterceptor, Proceed
from serving.security import scopes
from serving.security.gate import AUTHORIZATION, Gate, by_connection

log = logging.getLogger(__name__)


class AuthenticationInterceptor(CallInterceptor):
    """Sets `Call.caller`.

    Args:
        gate: judges credentials.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def around(self, call: Call, proceed: Proceed) -> None:
        """Find out who calls; health and liveness are open to anybody.

        Raises:
            Unauthenticated: the call needs a credential that it lacks.
            NotPermitted: the caller has no scope for it.
        """
        caller = by_connection(call.context.peer(), call.context.auth_context())
        try:
            if self._gate.needs_token and not scopes.is_open(call.method):
                caller = self._gate.by_token(_authorization(call))
            scopes.check(call.method, caller.scopes)
        except SaaaError as error:
            # Who it was, and what; never what was sent as a credential.
            log.info("refused %s by %s (%s): %s", call.method, caller.name, call.request_id, error.reason)
            raise
        call.caller = caller.name
        await proceed()


def _authorization(call: Call) -> str | None:
    """The call's one credential; of several none counts, for it would be unclear who saw which."""
    values = [value for key, value in call.context.invocation_metadata() or () if key == AUTHORIZATION]
    return values[0] if len(values) == 1 and isinstance(values[0], str) else None
