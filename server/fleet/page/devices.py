"""The devices: who is there, what they hear, what they have to catch up."""

import msgspec

from contract.report import NodeStatus
from server.fleet.page import words
from server.fleet.page.html import Html, make
from server.fleet.page.layout import Visit, address, live, page, pager
from server.fleet.query import BEHIND_S, PER_PAGE, Query, Row


def devices(visit: Visit, query: Query, number: int) -> str:
    """Return the page."""
    rows, count = query.nodes(number)
    counts = query.node_counts(visit.now)
    if not count:
        body = make(
            "p",
            "No device has been heard yet. An agent says that it is there as soon as it runs and "
            "reports to the same broker as this server.",
            class_="empty card",
        )
        return page(visit, "Devices", "/devices", make("h1", "Devices"), live("div", "list", body))
    heads = ("Device", "There", "Readings", "Not usable", "Behind", "Judged by")
    table = make(
        "table",
        make("thead", make("tr", [make("th", head, scope="col") for head in heads])),
        make("tbody", [_row(row, visit.now) for row in rows]),
        class_="devices",
    )
    more = pager("/devices", {}, number, count, PER_PAGE)
    head = f"{counts['online']:,} of {words.count(count, 'device')} online"
    return page(visit, "Devices", "/devices", make("h1", head), live("div", "list", table, more))


def _row(row: Row, now: float) -> Html:
    status = msgspec.json.decode(row["status"], type=NodeStatus) if row["status"] else None
    since = words.span(max(0.0, now - row["since_s"]))
    there = f"online for {since}" if row["online"] else f"gone for {since}"
    behind = (
        f"catching up, {words.span(row['behind_s'])} behind"
        if row["replayed_s"] is not None and row["replayed_s"] > now - BEHIND_S
        else ""
    )
    live_ = status.live if status else {}
    judged = [
        make("li", f"{name}: {f'release {v}' if v else 'its own models'}")
        for name, v in live_.items()
    ]
    asks = [
        make("li", f"{name} asks to be retrained: {reason}", class_="mark")
        for name, quality in (status.quality if status else {}).items()
        for reason in quality.retrain[:2]
    ]
    marked = sorted((status.marked if status else {}).items(), key=lambda one: -one[1])[:2]
    kind = "on" if row["online"] else "off"
    return make(
        "tr",
        make(
            "th",
            make("a", row["node"], href=address("/", {"site": row["site"], "node": row["node"]})),
            make("small", " · ".join(filter(None, (row["site"], row["area"], row["line"])))),
            make("small", _left(status), class_="left") if status and status.resources else None,
            scope="row",
        ),
        make(
            "td",
            make("span", "●" if row["online"] else "○", class_=f"dot {kind}", aria_hidden="true"),
            f" {there}",
            make("small", row["problem"], class_="problem") if row["problem"] else None,
            class_="there",
        ),
        make("td", f"{row['readings']:,}", class_="number readings"),
        make(
            "td",
            f"{row['rejected']:,} messages, {row['bad']:,} values"
            if row["rejected"] or row["bad"]
            else "none",
            [make("small", f"{number:,} {mark}") for mark, number in marked],
            class_="rejected",
        ),
        make("td", behind or "no", class_="behind"),
        make("td", make("ul", judged, asks, _settings(status)), class_="judged"),
    )


def _left(status: NodeStatus) -> str:
    """Return what the device has left, in words."""
    own = status.resources
    if own is None:
        return ""
    warm = f", {own.temperature_c} °C" if own.temperature_c is not None else ""
    free = f"{own.disk_free_mb / 1000:.1f} GB free"
    return f"{own.memory_mb} MB of memory, {free}, load {own.load:g}{warm}"


def _settings(status: NodeStatus | None) -> Html | None:
    """Return what became of the fleet's settings."""
    if status is None or not status.settings.version:
        return None
    own = status.settings
    said = {
        "trial": "are on trial",
        "applied": "are in force",
        "refused": f"are refused: {own.reason}",
        "rolled_back": f"were taken back: {own.reason}",
    }
    mark = own.state in {"refused", "rolled_back"}
    words_ = f"settings {own.version} {said.get(own.state, own.state)}"
    return make("li", words_, class_="mark" if mark else "")
