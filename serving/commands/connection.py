"""How the commands that ask a running service reach it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from saaa.errors import OptionInvalid

if TYPE_CHECKING:
    from saaa.client import Client


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Address and credentials."""

    address: str = "127.0.0.1:50051"
    """HOST:PORT of the service."""
    tls: bool = False
    """Speak TLS with a service whose certificate comes from a public authority."""
    ca: Path | None = None
    """Speak TLS; PEM file of the authorities that the service's certificate may come from."""
    certificate: Path | None = None
    """With TLS: PEM file of the own certificate, for a service that asks for one."""
    key: Path | None = None
    """With --certificate: PEM file of its private key."""
    token_file: Path | None = None
    """File that holds the token which goes with every call."""
    allow_plain_text: bool = False
    """Send the token without TLS to other machines too: where something else encrypts."""

    def client(self, timeout: float) -> Client:
        """A client; calls raise `saaa.client.RpcFailed`.

        Args:
            timeout: deadline of calls that set none, in seconds.

        Raises:
            OptionInvalid: a file cannot be read, options do not fit together, or the token would leave the machine in
                plain text.
        """
        from saaa.client import Client, tls

        secure = self.tls or self.ca is not None
        if self.certificate is not None and not secure:
            raise OptionInvalid("--certificate is for TLS: give --ca or --tls too.", field="certificate")
        try:
            credentials = tls(self.ca, certificate=self.certificate, key=self.key) if secure else None
            if self.token_file is not None:
                self.token_file.read_bytes()
            return Client(
                self.address,
                timeout=timeout,
                credentials=credentials,
                token=self.token_file,
                allow_plain_text=self.allow_plain_text,
            )
        except OSError as error:
            raise OptionInvalid(f"Cannot read {error.filename}: {error.strerror}.") from None
        except ValueError as error:
            raise OptionInvalid(f"{str(error)[0].upper()}{str(error)[1:]}.") from None
