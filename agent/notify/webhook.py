"""A webhook: each notice is posted as JSON; taken on is what is answered with a status of 2xx."""

import http.client
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec

from agent.notify.channel import Limits, Notice, NotSent
from contract.config import is_loopback
from contract.errors import ConfigError

_json = msgspec.json.Encoder()
_REFUSED = frozenset({400, 413, 422})
"""The receiver understands, and does not want this one: a second time would be no better."""


class Webhook(Limits, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="webhook"):
    """Where notices are posted; the others of its keys are those of every channel.

    Attributes:
        url: ``https://``; ``http://`` on loopback, or with ``insecure``.
        secret_file: holds the value of a header on its first line, e.g. ``Bearer ...``.
        header: that bears it.
        ca: PEM file of the authority that signed the server's certificate; empty: the system's.
        insecure: speak without TLS beyond loopback.
        timeout_s: of each step of a request.
    """

    url: str = ""
    secret_file: str = ""
    header: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]{1,64}$")] = "Authorization"
    ca: str = ""
    insecure: bool = False
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=300)] = 10.0

    def __post_init__(self) -> None:
        """Refuse what would speak in the open; msgspec turns this into an error with the path."""
        super().__post_init__()
        try:
            url = urlsplit(self.url)
            host, _ = url.hostname, url.port
            (host or "").encode("idna")  # as it is looked up
        except ValueError as error:
            raise ValueError(f"url: {self.url!r} is no URL: {error}") from error
        if not self.url.isascii() or not self.url.isprintable() or " " in self.url:
            raise ValueError(f"url: {self.url!r}: escape letters, as %20, or xn-- in a name")
        if url.scheme not in {"http", "https"} or not host:
            raise ValueError(f"url: {self.url!r} begins neither with https:// nor with http://")
        if "@" in url.netloc:
            raise ValueError("url: a secret does not belong in it: give secret_file")
        if url.scheme == "http" and not is_loopback(host) and not self.insecure:
            raise ValueError(
                f"url: {self.url!r} is beyond loopback without TLS: say https://, or "
                "insecure = true if the network is trusted"
            )

    @property
    def title(self) -> str:
        """Return the channel's name."""
        return self.name or "webhook"

    @property
    def files(self) -> dict[str, str]:
        """Return the files that must be there, by key."""
        return {"secret_file": self.secret_file, "ca": self.ca}

    def build(self) -> "WebhookChannel":
        """Return the channel; raises ``ConfigError`` if a file is not what it should be."""
        return WebhookChannel(self)


class WebhookChannel:
    """See ``Webhook``; certificates are checked, and no redirection is followed."""

    def __init__(self, config: Webhook) -> None:
        self._config = config
        self._headers = {"Content-Type": "application/json", "User-Agent": "runout"}
        if config.secret_file:
            self._headers[config.header] = _secret(config.secret_file)
        try:
            context = ssl.create_default_context(cafile=config.ca or None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"notify: ca: {config.ca!r} cannot be read ({error})") from error
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), _NoRedirect
        )

    def send(self, notice: Notice) -> None:
        """See ``agent.notify.Channel``."""
        request = urllib.request.Request(  # noqa: S310  # the configuration checked the scheme
            self._config.url,
            _json.encode(notice),
            {**self._headers, "Idempotency-Key": f'"{notice.id}"'},
            method="POST",
        )
        try:
            with self._opener.open(request, timeout=self._config.timeout_s):
                return  # what it says beside its status is not read
        except urllib.error.HTTPError as error:
            error.close()
            text = f"answered {error.code} {error.reason}"
            raise NotSent(text, final=error.code in _REFUSED) from error
        except urllib.error.URLError as error:
            raise NotSent(str(error.reason)) from error
        except (OSError, http.client.HTTPException) as error:
            raise NotSent(str(error) or type(error).__name__) from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    # urllib would ask again with GET, and tell the secret to whom it is sent on.
    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


def _secret(path: str) -> str:
    try:
        lines = Path(path).read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"notify: secret_file: {path!r} cannot be read ({error})") from error
    if not lines or not lines[0].strip() or not lines[0].isprintable():
        raise ConfigError(f"notify: secret_file: {path!r} has no secret on its first line")
    return lines[0].strip()
