"""A certificate of the sandbox's own, for clients that insist on https and wss."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from bot.errors import UsageError


@dataclass(frozen=True, slots=True)
class LocalCertificate:
    """A certificate for this machine, and the authority that a client must trust."""

    context: ssl.SSLContext
    authority: bytes
    """PEM of the authority's certificate."""

    def write(self, path: Path) -> None:
        """Store the authority's certificate, so that clients can be told to trust it.

        Raises:
            OSError: the file cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.authority)


def make_certificate(*names: str) -> LocalCertificate:
    """A new authority and a certificate of these host names and addresses; nothing of it is kept.

    Raises:
        UsageError: trustme is not installed.
    """
    try:
        import trustme
    except ImportError:
        raise UsageError("a certificate needs trustme: pip install 'recall-bot[tls]'") from None
    authority = trustme.CA(organization_name="Recall sandbox")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("localhost", "127.0.0.1", "::1"))).configure_cert(context)
    return LocalCertificate(context, authority.cert_pem.bytes())
