"""The fleet at a glance, and the list of machines."""

import msgspec

from contract.report import Health
from server.fleet.page import svg, words
from server.fleet.page.html import Child, Html, make
from server.fleet.page.layout import Visit, address, live, page, pager
from server.fleet.query import PER_PAGE, STATES, Counts, Filter, Place, Query, Row, Site

SITES = 12
"""That are shown at once."""
_ORDERS = {
    "worst": "worst first",
    "life": "least time left first",
    "silent": "longest silent first",
    "name": "by name",
}
_ONLY = {
    "": "all machines",
    "alert": "alerts that wait for somebody",
    "silent": "silent machines",
    "doubtful": "doubtful data",
}


def fleet(visit: Visit, query: Query, asked: Filter) -> str:
    """Return the page."""
    now = visit.now
    counts, nodes = query.counts(now), query.node_counts(now)
    rows, count = query.machines(asked, now)
    if not rows and asked.page > 1:
        asked = msgspec.structs.replace(asked, page=max(1, -(-count // PER_PAGE)))
        rows, count = query.machines(asked, now)
    if not counts.machines:
        return page(visit, "Machines", "/", _overall(counts, nodes), _nothing(nodes))
    sites = query.sites(now)
    return page(
        visit,
        _title(counts),
        "/",
        _overall(counts, nodes),
        _legend(counts),
        live("section", "places", _places(query, asked, sites, now)),
        make("h2", "Machines", id="machines"),
        _filters(asked, sites, query.labels(asked.site, asked.area)),
        live(
            "div",
            "list",
            _table(rows, query, now) if rows else _no_match(),
            pager("/", asked.address(page=1), asked.page, count, PER_PAGE) if rows else None,
        ),
    )


def _title(counts: Counts) -> str:
    failing = counts.by_state["failing"]
    return f"({failing}) Machines" if failing else "Machines"


def _overall(counts: Counts, nodes: Row) -> Html:
    failing, degraded = counts.by_state["failing"], counts.by_state["degraded"]
    head = words.count(counts.machines, "machine")
    if failing:
        head = f"{failing:,} of {head} {'is' if failing == 1 else 'are'} failing"
    elif degraded:
        head = f"{degraded:,} of {head} {'is' if degraded == 1 else 'are'} degraded"
    elif counts.machines:
        head = f"{head}, none degraded or failing"
    else:
        head = "No machine has been heard yet"
    kind = "bad" if failing else "warn" if degraded else "good" if counts.machines else ""

    devices = f"{nodes['online']:,} of {words.count(nodes['nodes'], 'device')} online"
    facts: list[tuple[str, str]] = [
        (f"{words.count(counts.waiting, 'alert')} waiting for somebody", "/?only=alert"),
        (f"{counts.silent:,} silent", "/?only=silent"),
        (f"{counts.doubtful:,} with doubtful data", "/?only=doubtful"),
        (devices, "/devices"),
    ]
    shown = [
        one
        for one, zero in zip(
            facts, (counts.waiting, counts.silent, counts.doubtful, 1), strict=True
        )
        if zero
    ]
    if nodes["behind"]:
        lag = words.span(nodes["behind_s"] or 0.0)
        shown.append(
            (f"{words.count(nodes['behind'], 'device')} catching up, {lag} behind", "/devices")
        )
    if nodes["problem"]:
        shown.append((f"{words.count(nodes['problem'], 'device')} with a problem", "/devices"))
    if nodes["retrain"]:
        shown.append(
            (f"{words.count(nodes['retrain'], 'device')} asking to be retrained", "/devices")
        )

    return live(
        "section",
        "overall",
        make("h1", head),
        make("p", [[make("a", text, href=href), " "] for text, href in shown], class_="facts"),
        class_=f"overall {kind}",
    )


def _legend(counts: Counts) -> Html:
    return live(
        "section",
        "states",
        svg.stacked(counts.by_state, "Machines by state"),
        make(
            "ul",
            [
                make(
                    "li",
                    make(
                        "a",
                        svg.state(state),
                        make("b", f"{counts.by_state[state]:,}"),
                        href=address("/", {"state": state}),
                    ),
                )
                for state in STATES
            ],
            class_="legend",
        ),
    )


def _places(query: Query, asked: Filter, sites: list[Site], now: float) -> list[Child]:
    """Return the places one step further in: sites, areas of the one that is chosen, lines."""
    kind: Place = "line" if asked.area else "area" if asked.site or len(sites) == 1 else "site"
    if asked.line:
        return []
    places = sites if kind == "site" else query.places(now, kind, asked.site, asked.area)
    if len(places) < (2 if kind == "site" else 1):
        return []
    shown = places[:SITES]
    rest = len(places) - len(shown)
    into = {"site": asked.site, "area": asked.area}
    title = f"{kind.title()}s{f' of {asked.area or asked.site}' if asked.site else ''}"
    return [
        make("h2", title),
        make("div", [_place(kind, one, into) for one in shown], class_="sites"),
        make("p", f"… and {words.count(rest, kind)} more: choose one below.", class_="fine")
        if rest
        else None,
    ]


def _place(kind: Place, place: Site, into: dict[str, str]) -> Html:
    counts = place.counts
    notes = [
        f"{counts.by_state['failing']:,} failing" if counts.by_state["failing"] else None,
        f"{counts.by_state['degraded']:,} degraded" if counts.by_state["degraded"] else None,
        f"{counts.silent:,} silent" if counts.silent else None,
        words.count(counts.waiting, "alert") if counts.waiting else None,
        f"{place.online:,} of {words.count(place.nodes, 'device')} online",
    ]
    names = {key: value for key, value in into.items() if value} | {kind: place.name}
    return make(
        "a",
        make("b", place.name),
        make("span", words.count(counts.machines, "machine"), class_="fine"),
        svg.stacked(counts.by_state, f"Machines of {place.name} by state"),
        make("small", " · ".join(filter(None, notes))),
        href=address("/", names),
        class_="card site",
    )


def _filters(asked: Filter, sites: list[Site], labels: dict[str, list[str]]) -> Html:
    def choice(name: str, label: str, options: dict[str, str], chosen: str) -> Html:
        return make(
            "label",
            label,
            make(
                "select",
                [
                    make("option", text, value=value, selected=value == chosen)
                    for value, text in options.items()
                ],
                name=name,
            ),
        )

    names = {"": "all sites"} | {site.name: site.name for site in sites}
    if asked.site:
        names.setdefault(asked.site, asked.site)
    return make(
        "form",
        make(
            "label",
            "Search",
            make(
                "input",
                type="search",
                name="q",
                value=asked.q,
                placeholder="machine, device, site, class",
                autocomplete="off",
                maxlength=200,
            ),
        ),
        choice("site", "Site", names, asked.site) if len(names) > 2 else None,
        [
            choice(name, name.title(), {"": f"all {name}s"} | {one: one for one in of}, chosen)
            for name, of, chosen in (
                ("area", labels["area"], asked.area),
                ("line", labels["line"], asked.line),
            )
            if of or chosen
        ],
        make("input", type="hidden", name="node", value=asked.node) if asked.node else None,
        choice(
            "state",
            "State",
            {"": "any state"} | {state: words.STATES[state] for state in STATES},
            asked.state,
        ),
        choice("only", "Show", _ONLY, asked.only),
        choice("order", "Order", _ORDERS, asked.order),
        make("button", "Show", class_="do"),
        make("a", "all machines", href="/") if asked.narrows else None,
        make("span", f"of device {asked.node}", class_="fine") if asked.node else None,
        action="/",
        method="get",
        class_="filters",
        role="search",
        aria_label="Machines",
    )


def _table(rows: list[Row], query: Query, now: float) -> Html:
    heads = ("Machine", "State", "Health", "Time left", "Why", "Data")
    return make(
        "table",
        make("thead", make("tr", [make("th", head, scope="col") for head in heads])),
        make("tbody", [_row(row, silent=query.is_silent(row, now), now=now) for row in rows]),
        class_="machines",
    )


def where(row: Row) -> dict[str, str]:
    """Return the names of a machine, as an address has them."""
    return {name: row[name] for name in ("site", "node", "asset")}


def _row(row: Row, *, silent: bool, now: float) -> Html:
    report = msgspec.json.decode(row["report"], type=Health) if row["report"] else None
    left, between = words.left(row["rul_h"], row["rul_low_h"], row["rul_high_h"])
    of = " · ".join(filter(None, (row["site"], row["node"], row["asset_class"])))
    owed = row["alert_now"]
    why: list[Child] = []
    if report is not None and row["state"] in {"degraded", "failing"}:
        why = [make("li", words.reason(one, None)[0]) for one in report.why[:2]]
    marks = list(report.marks[:2]) if report else []
    return make(
        "tr",
        make(
            "th",
            make("a", row["asset"], href=address("/machine", where(row))),
            make("small", of),
            scope="row",
        ),
        make(
            "td",
            svg.state(row["state"]),
            make("small", words.ALERTS[owed], class_=f"owed {owed}") if owed != "normal" else None,
        ),
        make("td", svg.bar(row["health"], row["state"]), class_="health"),
        make("td", left, make("small", between) if between else None, class_="number hours"),
        make("td", make("ul", why) if why else None, class_="why"),
        make(
            "td",
            [make("span", mark, class_="mark") for mark in marks],
            make(
                "small",
                f"{'silent: ' if silent else ''}heard {words.ago(now - row['heard_s'])}",
                class_="silent" if silent else None,
            ),
            class_="data",
        ),
    )


def _no_match() -> Html:
    return make(
        "p",
        "No machine is like that. ",
        make("a", "Show all machines", href="/"),
        class_="empty card",
    )


def _nothing(nodes: Row) -> Html:
    if nodes["nodes"]:
        text = make(
            "p",
            f"{words.count(nodes['nodes'], 'device')} can be heard, but none has judged a machine "
            "yet. A machine is listed with its first report: an agent needs readings for that. "
            "See what it hears on its own page, or run ",
            make("code", "runout-agent check --live"),
            " on the device.",
        )
    else:
        text = make(
            "ol",
            make(
                "li",
                "On each device, let the agent report to the same broker as this server: ",
                make("code", "[mqtt] host"),
                " in its configuration.",
            ),
            make("li", "Start it: ", make("code", "runout-agent run --config agent.toml"), "."),
            make(
                "li",
                "No devices at hand? ",
                make("code", "make demo KEEP=1"),
                " plays a plant with some.",
            ),
        )
    return live("section", "nothing", make("h2", "What to do"), text, class_="empty card")


def unknown(visit: Visit) -> str:
    """Return the page of a machine that nothing was ever heard of."""
    body = make(
        "p",
        "Nothing was ever heard of a machine of this name, or so long ago that it is forgotten. ",
        make("a", "All machines", href="/"),
        class_="empty card",
    )
    return page(visit, "No such machine", "", make("h1", "No such machine"), body)
