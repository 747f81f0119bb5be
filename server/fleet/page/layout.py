"""What every page has: head, places to go to, what is wrong."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from server.fleet.page.gate import Session
from server.fleet.page.html import Child, Html, make

PLACES = (("/", "Machines"), ("/devices", "Devices"), ("/federation", "Federation"))


class Visit(NamedTuple):
    """A request, as far as a page must know it.

    Attributes:
        session: whose.
        token: that its forms must bear.
        by: name under which the visitor last said something.
        now: seconds since 1970 UTC.
        troubles: what is wrong with the server, in sentences.
        asks: whether a password is asked for.
        said: what came of the form that led here.
    """

    session: Session
    token: str
    by: str
    now: float
    troubles: Sequence[str]
    asks: bool
    said: str


def address(path: str, values: Mapping[str, str]) -> str:
    """Return an address on the page.

    >>> address("/machine", {"asset": "pump 1&2"})
    '/machine?asset=pump+1%262'
    """
    return f"{path}?{urlencode(values)}" if values else path


def live(tag: str, name: str, *children: Child, class_: str | None = None) -> Html:
    """Return an element that is renewed while it is looked at."""
    return make(tag, *children, id=name, class_=class_, data_live=True)


def form(visit: Visit, action: str, *children: Child, **fields: str) -> Html:
    """Return a form that says something to the server, with its token and hidden fields."""
    hidden = [make("input", type="hidden", name=k, value=v) for k, v in fields.items()]
    token = make("input", type="hidden", name="token", value=visit.token)
    return make("form", token, hidden, *children, method="post", action=action)


def page(visit: Visit, title: str, here: str, *children: Child) -> str:
    """Return a whole page."""
    places = [
        make("a", name, href=path, aria_current="page" if path == here else None)
        for path, name in PLACES
    ]
    leave = (
        form(visit, "/logout", make("button", "Log out", class_="quiet")) if visit.asks else None
    )
    head = make(
        "head",
        make("meta", charset="utf-8"),
        make("meta", name="viewport", content="width=device-width, initial-scale=1"),
        make("meta", name="color-scheme", content="light dark"),
        make("title", f"{title} - Runout"),
        make("link", rel="icon", href="/static/icon.svg", type="image/svg+xml"),
        make("link", rel="stylesheet", href="/static/page.css"),
        make("script", "", type="module", src="/static/page.js"),
    )
    said = make("p", visit.said, role="status", class_="said") if visit.said else None
    body = make(
        "body",
        make("a", "To the content", class_="skip", href="#main"),
        make(
            "header",
            make("a", "Runout", href="/", class_="home"),
            make("nav", places, aria_label="Pages"),
            make("span", "", id="pulse", role="status"),
            leave,
        ),
        live(
            "div",
            "troubles",
            [make("p", trouble) for trouble in visit.troubles],
            class_="troubles" if visit.troubles else None,
        ),
        make("main", said, *children, id="main", tabindex="-1"),
    )
    return f"<!doctype html>\n{make('html', head, body, lang='en')}"


def login(visit: Visit, problem: str) -> str:
    """Return the page that asks for the password."""
    return "<!doctype html>\n" + make(
        "html",
        make(
            "head",
            make("meta", charset="utf-8"),
            make("meta", name="viewport", content="width=device-width, initial-scale=1"),
            make("meta", name="color-scheme", content="light dark"),
            make("title", "Log in - Runout"),
            make("link", rel="icon", href="/static/icon.svg", type="image/svg+xml"),
            make("link", rel="stylesheet", href="/static/page.css"),
        ),
        make(
            "body",
            make(
                "main",
                make("h1", "Runout: the fleet"),
                make("p", problem, role="alert", class_="troubles") if problem else None,
                form(
                    visit,
                    "/login",
                    # Nobody has a name here; what keeps passwords asks for one all the same.
                    make(
                        "input",
                        name="username",
                        value="fleet",
                        autocomplete="username",
                        hidden=True,
                    ),
                    make(
                        "label",
                        "Password",
                        make(
                            "input",
                            type="password",
                            name="password",
                            autocomplete="current-password",
                            required=True,
                            autofocus=True,
                        ),
                    ),
                    make("button", "Log in", class_="do"),
                ),
                make(
                    "p",
                    "It stands in the file that the server's configuration names as "
                    "fleet.password_file.",
                    class_="fine",
                ),
                class_="login card",
            ),
        ),
        lang="en",
    )


def pager(path: str, values: Mapping[str, str], page_: int, count: int, per_page: int) -> Html:
    """Return links to the page before and after."""
    pages = max(1, -(-count // per_page))

    def to(number: int, text: str, rel: str) -> Html:
        if not 1 <= number <= pages:
            return make("span", text, class_="off")
        new = {**values, "page": str(number)}
        return make("a", text, href=address(path, new), rel=rel)

    first = min((page_ - 1) * per_page + 1, count)
    last = min(page_ * per_page, count)
    return make(
        "nav",
        to(page_ - 1, "← before", "prev"),
        make("span", f"{first:,} to {last:,} of {count:,}"),
        to(page_ + 1, "next →", "next"),
        class_="pager",
        aria_label="More of the list",
    )
