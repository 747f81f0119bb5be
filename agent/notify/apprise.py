"""E-mail, chats and telephones through Apprise, where it is installed: ``runout[notify]``."""

from pathlib import Path
from typing import Any

from agent.notify.channel import Limits, Notice, NotSent
from contract.errors import ConfigError

# As Apprise has them: what a notice looks like, and sounds like, where it arrives.
_TYPES = {"failing": "failure", "degraded": "warning"}
TITLES = {"raised": "alert", "escalated": "alert, worse", "returned": "alert over"}
MOST_URLS = 50


class Apprise(Limits, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="apprise"):
    """Where notices go; the other keys are those of every channel.

    Attributes:
        urls_file: a URL a line, as Apprise reads them, e.g. ``mailtos://...``; they bear secrets,
            so let only the agent's user read it. Lines that begin with # are comments.
    """

    urls_file: str = ""

    @property
    def title(self) -> str:
        """Return the channel's name."""
        return self.name or "apprise"

    @property
    def files(self) -> dict[str, str]:
        """Return the files that must be there, by key."""
        return {"urls_file": self.urls_file or "?"}

    def build(self) -> "AppriseChannel":
        """Return the channel; raises ``ConfigError`` if a URL is none, or Apprise is not there."""
        return AppriseChannel(self)


class AppriseChannel:
    """See ``Apprise``."""

    def __init__(self, config: Apprise) -> None:
        try:
            import apprise  # noqa: PLC0415  # 40 MB that few devices need
        except ImportError as error:
            raise ConfigError(
                "notify: kind 'apprise' needs a package that is not installed: "
                "pip install 'runout[notify]'"
            ) from error
        self._apprise: Any = apprise.Apprise()
        for number, url in _urls(config.urls_file):
            # The URL itself is not shown: it bears a secret.
            if not self._apprise.add(url):
                raise ConfigError(f"{config.urls_file}:{number}: Apprise does not know such a URL")

    def send(self, notice: Notice) -> None:
        """See ``agent.notify.Channel``; sent again are all URLs, if one could not be reached."""
        body = notice.text
        if notice.held_back:
            body += f"\n({notice.held_back} earlier notices of it were held back)"
        title = f"{notice.alert.asset}: {TITLES[notice.kind]} ({notice.site}/{notice.node})"
        if not self._apprise.notify(title=title, body=body, notify_type=_type(notice)):
            raise NotSent("Apprise could not reach all of its URLs")


def _type(notice: Notice) -> str:
    if notice.kind != "returned":
        return _TYPES[notice.alert.severity]
    # A machine that failed is no success, though its alert is over.
    return "info" if notice.alert.event == "failed" else "success"


def _urls(path: str) -> list[tuple[int, str]]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"notify: urls_file: {path!r} cannot be read ({error})") from error
    urls = [(i, line.strip()) for i, line in enumerate(lines, 1)]
    urls = [(i, line) for i, line in urls if line and not line.startswith("#")]
    if not 0 < len(urls) <= MOST_URLS:
        raise ConfigError(f"{path}: {len(urls)} URLs; give one to {MOST_URLS}, one a line")
    return urls
