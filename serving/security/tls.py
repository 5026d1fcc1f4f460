"""TLS for the facade's port: certificates that may be replaced while it runs."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from serving.security.settings import SecuritySettings
from serving.security.watched import Watched


def server_credentials(settings: SecuritySettings) -> grpc.ServerCredentials | None:
    """Credentials of the port; None is plain text.

    gRPC asks for the certificate at every new connection, so that a replaced one serves all connections from then on.

    Raises:
        StartFailed: a file cannot be read, or certificate and key do not belong together.
    """
    certificate, key, client_ca = settings.tls_certificate, settings.tls_key, settings.client_ca
    if certificate is None or key is None:
        return None
    paths = [certificate, key, *([client_ca] if client_ca else [])]
    watched = Watched("TLS certificates", paths, lambda: _read(certificate, key, client_ca), every_s=settings.poll_s)
    given = watched.value()

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        last, given = given, watched.value()
        # None keeps what gRPC has made of the last one.
        return None if given is last else given

    must = client_ca is not None
    # gRPC's documentation has None, its types lack it.
    return grpc.dynamic_ssl_server_credentials(given, fetch, require_client_authentication=must)  # type: ignore[arg-type]


def _read(certificate: Path, key: Path, client_ca: Path | None) -> grpc.ServerCertificateConfiguration:
    """Read and check them: gRPC itself would take anything and then refuse every connection.

    Raises:
        OSError: a file cannot be read, or its content is not what it should be.
        ValueError: a file changed meanwhile.
    """
    chain, secret = certificate.read_bytes(), key.read_bytes()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # The password keeps OpenSSL from asking for one on the terminal.
        context.load_cert_chain(certificate, key, password="")
        roots = client_ca.read_bytes() if client_ca else None
        if roots is not None:
            context.load_verify_locations(cadata=roots.decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError):
        raise ValueError(
            "they must be PEM files, the key not encrypted and that of the certificate, the authorities' complete"
        ) from None
    if (chain, secret) != (certificate.read_bytes(), key.read_bytes()):
        raise ValueError("they changed while they were read")
    return grpc.ssl_server_certificate_configuration([(secret, chain)], root_certificates=roots)
