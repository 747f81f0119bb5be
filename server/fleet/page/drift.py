"""What drifts in the fleet: one machine of a class, or all of them alike."""

from server.fleet.page import words
from server.fleet.page.html import Html, make
from server.fleet.page.layout import address, live
from server.fleet.query import Drifting


def drift(found: list[Drifting]) -> Html:
    """Return the section; empty where no class is watched, or nothing drifts."""
    told = [one for one in found if one.drifting]
    if not told:
        return live("section", "drift")
    return live(
        "section",
        "drift",
        make("h2", "Drift"),
        make("ul", [_class(one) for one in told], class_="list"),
    )


def _class(one: Drifting) -> Html:
    links = [
        [
            " " if number else "",
            make(
                "a", asset, href=address("/machine", {"site": site, "node": node, "asset": asset})
            ),
        ]
        for number, (site, node, asset) in enumerate(one.worst)
    ]
    more = one.drifting - len(one.worst)
    meaning = (
        f"{', '.join(one.channels)} on most of them alike: the process or the season, and no "
        "machine's fault; train again once it stays."
        if one.channels
        else "each by itself: look at these machines, or at their sensors."
    )
    return make(
        "li",
        make("b", f"Class {one.asset_class or 'not known'}: "),
        f"{one.drifting:,} of {words.count(one.machines, 'machine')} drift, {meaning}",
        make("small", links, f" and {more:,} more" if more > 0 else None),
    )
