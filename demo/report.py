"""What came of a demonstration, for people and as JSON."""

import math
from datetime import UTC, datetime
from typing import Any

from contract.report import Alert, Health
from demo.plan import Asset


def rmse(pairs: list[tuple[float, float]]) -> float | None:
    """Return the root mean square difference; None of nothing."""
    if not pairs:
        return None
    return math.sqrt(sum((a - b) ** 2 for a, b in pairs) / len(pairs))


def errors(
    health: dict[str, Health], true: list[Asset], cap_h: float
) -> tuple[float | None, float | None]:
    """Return the errors of remaining life, devices alone and federated, in hours, up to the cap.

    Over the same assets, at the same moment: the last thing each agent said of each.
    """
    local, federated = [], []
    for asset in true:
        said = health.get(asset.asset)
        if said is None or said.rul_h is None or said.rul_local_h is None or not said.judged_by:
            continue
        left = min(asset.rul_h, cap_h)
        local.append((said.rul_local_h, left))
        federated.append((said.rul_h, left))
    return rmse(local), rmse(federated)


def flagged(health: dict[str, Health], alerts: dict[str, Alert]) -> list[dict[str, Any]]:
    """Return the assets whose alert stands, the most urgent first."""
    found = []
    for asset, alert in alerts.items():
        if not alert.stands:
            continue
        now = health[asset]
        why = now.why or alert.why
        found.append(
            {
                "asset": asset,
                "since": _iso(alert.since),
                "why": [w.channel for w in why],
                "rul_hours": now.rul_h,
                "health": now.health,
                "text": alert.text,
            }
        )
    return sorted(found, key=lambda f: (f["rul_hours"] is None, f["rul_hours"]))


def truths(true: list[Asset]) -> list[dict[str, Any]]:
    """Return what was true, as JSON has it."""
    return [
        {
            "asset": asset.asset,
            "fault": asset.fault,
            "since": None if asset.began is None else _iso(asset.began),
            "rul_hours": round(asset.rul_h, 2),
            "channels": list(asset.channels),
        }
        for asset in true
    ]


def in_words(report: dict[str, Any], *, most: int = 12) -> str:
    """Return the summary that ends a demonstration."""
    true = {asset["asset"]: asset for asset in report["truth"]}
    lines = ["", "What the agents say", "-------------------"]
    for found in report["flagged"][:most]:
        hours = found["rul_hours"]
        lines.append(
            f"{found['asset']:18} failing since {found['since'][:16].replace('T', ' ')}, "
            f"about {'?' if hours is None else f'{hours:.0f}'} h left "
            f"(because of {', '.join(found['why']) or 'its predicted life alone'})"
        )
        fact = true.get(found["asset"])
        if fact is not None:
            began = fact["since"]
            known = fact["fault"] is not None
            what = (fact["fault"] or "nothing yet to be felt") if known else ""
            since = "" if began is None else f" since {began[:16].replace('T', ' ')}"
            left = f"{fact['rul_hours']:.0f} h left"
            lines.append(f"{'':18}   in truth: {what}{since}{', ' if what else ''}{left}")
    if len(report["flagged"]) > most:
        lines.append(f"... and {len(report['flagged']) - most} more, see report.json")
    if not report["flagged"]:
        lines.append("no machine is failing")
    sick = {a["asset"] for a in report["truth"] if a["fault"]}
    said = {f["asset"] for f in report["flagged"]}
    if sick:
        lines.append(
            f"{len(sick & said)} of {len(sick)} machines with a fault that can be felt were found; "
            f"{len(said - sick)} of {len(true) - len(sick)} others were flagged too."
        )
    lines += ["", "What learning together brought", "------------------------------"]
    local, federated = report["local_error"], report["federated_error"]
    if local is None or federated is None:
        lines.append("no release came into use: the errors cannot be compared")
    else:
        lines.append(f"error of the remaining life, each device alone:  {local:5.1f} h")
        lines.append(
            f"error with release {report['released_version']} of the fleet:     {federated:10.1f} h"
        )
        lines.append(
            f"that is {1 - federated / local:.0%} less" if federated < local else "no better"
        )
    lines.append(
        f"{report['rounds']} rounds with {report['nodes']} nodes; "
        f"{report['readings_processed']:,} of {report['readings_sent']:,} readings processed; "
        f"{report['seconds']:.0f} s in all"
    )
    return "\n".join(lines)


def _iso(t: float) -> str:
    return datetime.fromtimestamp(t, UTC).isoformat().replace("+00:00", "Z")
