"""A machine's features now and before, as an Evidently report: has what is measured drifted?

Of what devices show on the fleet's page (``contract.picture``), from the fleet's table. Raw
telemetry stays on the devices.
"""

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from contract.errors import RunoutError
from server.config import ServerConfig
from server.fleet.query import Query
from server.fleet.store import open_engine
from server.fleet.tables import machine as machines

if TYPE_CHECKING:
    import pandas as pd

DAY_S = 86_400.0
LEAST = 20
"""Points of a feature in each window; of fewer nothing is said."""
THRESHOLD = 0.5
"""Wasserstein's distance over the reference's deviation. A test by p-value would find drift in
nearly every feature: neighbouring points are alike, and it takes them for independent ones."""


class Windows(NamedTuple):
    """What is compared.

    Attributes:
        reference: ``(n, F)`` before; a column a feature, named ``channel statistic``.
        current: ``(m, F)`` of the newest days.
        left_out: features with too few points.
    """

    reference: "pd.DataFrame"
    current: "pd.DataFrame"
    left_out: list[str]


class Drifted(NamedTuple):
    """How far a feature is from where it was.

    Attributes:
        feature: its name.
        distance: Wasserstein's, over the reference's deviation.
        drifted: it is beyond the threshold.
    """

    feature: str
    distance: float
    drifted: bool


def windows(config: ServerConfig, machine: str, days: float, reference_days: float) -> Windows:
    """Return a machine's features of the newest days of its data, and of those before.

    Args:
        config: of the server whose fleet's table is read.
        machine: ``SITE/NODE/MACHINE``.
        days: of the current window.
        reference_days: of the one before it.

    Raises:
        RunoutError: no such machine, or too little is known of it.
    """
    import pandas as pd

    names = machine.split("/")
    if len(names) != 3:
        raise RunoutError(f"{machine!r}: write SITE/NODE/MACHINE")
    url = config.fleet.url(config.folder)
    if (
        url.startswith("sqlite")
        and not (config.folder / "fleet.db").exists()
        and not (config.fleet.database)
    ):
        raise RunoutError(f"{config.folder}: no fleet.db here; has runout-server heard a fleet?")
    engine = open_engine(url)
    try:
        query = Query(engine, 60.0 * config.fleet.silent_min)
        seen = query.machine(*names)
        if seen is None:
            with engine.connect() as db:
                columns = (machines.c.site, machines.c.node, machines.c.asset)
                known = db.execute(machines.select().with_only_columns(*columns).limit(8)).all()
            there = ", ".join("/".join(row) for row in known) or "none"
            raise RunoutError(f"nothing was ever heard of {machine!r}; there are {there}")
        found = query.features(seen.row["id"], None)
    finally:
        engine.dispose()
    newest = max((t for curve in found.values() for t, _ in curve), default=0.0)
    begin, before = newest - DAY_S * days, newest - DAY_S * (days + reference_days)
    now = {name: {t: v for t, v in curve if t > begin} for name, curve in found.items()}
    then = {name: {t: v for t, v in curve if before < t <= begin} for name, curve in found.items()}
    enough = [name for name in found if min(len(now[name]), len(then[name])) >= LEAST]
    if not enough:
        most = [max((len(one) for one in window.values()), default=0) for window in (then, now)]
        raise RunoutError(
            f"{machine}: too little is known: {most[1]} points of the newest {days:g} days and "
            f"{most[0]} of the {reference_days:g} before; {LEAST} of each at least. Choose other "
            "--days and --reference-days; a device sends report.features_every_s"
        )
    current, reference = (
        pd.DataFrame({name: pd.Series(window[name], dtype=float) for name in enough})
        for window in (now, then)
    )
    return Windows(reference, current, sorted(found.keys() - set(enough)))


def report(
    found: Windows, threshold: float, html: Path | None, as_json: Path | None
) -> list[Drifted]:
    """Write the report; returns what it says, the furthest first.

    Raises:
        RunoutError: Evidently is not there.
    """
    # Before it is imported, as it looks once: its makers are told nothing.
    os.environ["DO_NOT_TRACK"] = "1"
    try:
        with warnings.catch_warnings():
            # It uses names of numpy and pandas that are to be another; nothing of it is ours.
            warnings.simplefilter("ignore", DeprecationWarning)
            from evidently import DataDefinition, Dataset, Report
            from evidently.presets import DataDriftPreset
    except ImportError as error:
        raise RunoutError(
            f"Evidently is not there ({error}): pip install 'runout[evidently]'"
        ) from error
    shape = DataDefinition(numerical_columns=list(found.current.columns))
    preset = DataDriftPreset(num_method="wasserstein", num_threshold=threshold)
    made = Report([preset]).run(
        Dataset.from_pandas(found.current, data_definition=shape),
        Dataset.from_pandas(found.reference, data_definition=shape),
    )
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        made.save_html(str(html))
    if as_json is not None:
        as_json.parent.mkdir(parents=True, exist_ok=True)
        made.save_json(str(as_json))
    metrics: list[dict[str, Any]] = made.dict()["metrics"]
    told = [
        Drifted(one["config"]["column"], float(one["value"]), float(one["value"]) >= threshold)
        for one in metrics
        if "column" in one["config"]
    ]
    return sorted(told, key=lambda one: -one.distance)
