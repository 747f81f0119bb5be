"""What other services have collected is replayed.

The samples are made by hand, and follow the formats exactly as Amazon documents them (sources in
``agent.imports``); no customer's recordings were at hand.
"""

import copy
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from agent.cli import main

HOURS = [f"2023-06-{1 + h // 24:02} {h % 24:02}:10:05.250" for h in range(72)]


def band(level: float, total: str) -> dict[str, Any]:
    axes = {f"{a}Axis": {"rms": level * s} for a, s in (("x", 0.6), ("y", 0.5), ("z", 0.4))}
    whole = {"absMax": 3 * level, "absMin": 0.1, "crestFactor": 3.0, "rms": level}
    return {total: whole, **axes}


def features(hour: int, total: str) -> dict[str, Any]:
    level = 1.0 + 0.05 * (hour * 7 % 11) + (2.0 if 50 <= hour < 60 else 0.0)
    wide = {f"{a}Axis": {"rms": level} for a in "xyz"}
    return {
        "acceleration": {"band0To6000Hz": wide, "band10To1000Hz": band(4 * level, total)},
        "velocity": {"band10To1000Hz": band(level, total)},
        "temperature": 30.0 + hour * 5 % 7,
    }


def place(position: str) -> dict[str, Any]:
    return {
        "siteName": "North",
        "assetName": "Cooling pump #2",
        "positionName": position,
        "companyName": "Example",
        "geoLocation": {"latitude": 1.0, "longitude": 2.0},
        "address": "Example Road 1",
        "serialNumber": "S-17",
        "make": "KSB",
        "model": "Etanorm",
        "assetPositionURL": "https://app.example/positions/1",
        "sensor": {"physicalId": "5EN50R", "rssi": -60},
        "gateway": {"physicalId": "6A7E"},
        "assetPositionId": f"id-{position}",
    }


def record(t: str, kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    return {
        "timestamp": t,
        "eventId": f"{t}-{kind}-{payload.get('positionName')}",
        "version": "2.0",
        "accountId": "123456789012",
        "projectName": "plant",
        "projectId": "p-1",
        "eventType": kind,
        "eventPayload": payload,
    }


def outputs(word: str) -> dict[str, str]:
    return {
        "previousPersistentClassificationOutput": word,
        "persistentClassificationOutput": word,
        "pointwiseClassificationOutput": word,
    }


def second() -> list[dict[str, Any]]:
    """Return a position's three days by schema 2: an alarm, closed as an imbalance, replaced."""
    models = {
        "temperatureML": outputs("HEALTHY"),
        "vibrationISO": {"isoClass": "CLASS2", "mutedThreshold": "WARNING", **outputs("HEALTHY")},
        "vibrationML": outputs("HEALTHY"),
    }
    found = [
        record(
            t,
            "measurement",
            place("drive end")
            | {"sequenceNo": i, "features": features(i, "totalVibration"), "models": models},
        )
        for i, t in enumerate(HOURS)
    ]
    change = place("drive end") | {
        "assetTransitionType": "measurement",
        "assetState": {"newState": "ALARM", "previousState": "HEALTHY"},
    }
    found.append(record(HOURS[50], "assetStateTransition", change))
    closed = copy.deepcopy(change) | {
        "assetTransitionType": "userInput",
        "assetState": {"newState": "HEALTHY", "previousState": "NEEDS_MAINTENANCE"},
        "closureCode": {
            "failureMode": "IMBALANCE",
            "failureCause": "WEAR",
            "actionTaken": "REPLACE",
            "resolvedModels": ["vibrationML"],
        },
    }
    found.append(record(HOURS[60], "assetStateTransition", closed))
    gateway = {"siteName": "North", "gatewayName": "hall", "gateway": {"physicalId": "6A7E"}}
    found.append(record(HOURS[3], "gatewayConnected", gateway))
    found.append(found[0])  # a stream says some things twice
    return found


def first() -> list[dict[str, Any]]:
    return [
        {
            "timestamp": t,
            "eventId": f"first-{t}",
            "version": "1.0",
            "projectDisplayName": "plant",
            "siteDisplayName": "North",
            "assetDisplayName": "Fan",
            "sensorPositionDisplayName": "motor",
            "sensor": {"physicalId": "5EN50S", "rssi": -50},
            "gateway": {"physicalId": "6A7E"},
            "measurement": {"features": features(i, "resultantVector"), "sequenceNo": i},
            "models": {
                "temperatureML": outputs("HEALTHY"),
                "vibrationISO": {"isoClass": "CLASS1", **outputs("HEALTHY")},
                "vibrationML": outputs("HEALTHY"),
            },
            "assetState": {"newState": "HEALTHY", "previousState": "HEALTHY"},
        }
        for i, t in enumerate(HOURS)
    ]


def replayed(out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what a replay prints of what an import left."""
    capsys.readouterr()
    tables = [str(path) for path in sorted((out / "rows").glob("*.csv"))]
    words = ["--format", f"{out}/tables.toml", "--labels", f"{out}/labels.json", "--quiet"]
    code = main(["replay", *tables, *words, "--config", f"{out}/agent.toml"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return printed.out


def test_an_export_of_monitron_is_replayed_with_what_was_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # As Kinesis lays it into S3: one behind the other, here without a line end between them.
    two = tmp_path / "two.gz"
    two.write_bytes(gzip.compress("".join(map(json.dumps, second())).encode()))
    one = tmp_path / "one.json"
    one.write_text("\n".join(map(json.dumps, first())))
    out = tmp_path / "out"
    given = ["import", "monitron", str(two), str(one), "--out", str(out)]
    assert main([*given, "--replaced-is-failed"]) == 0
    said = capsys.readouterr().out
    assert "Cooling-pump-2.drive-end: 72 rows, 2 lives, 1 times something was wrong" in said
    assert "Fan.motor: 72 rows, 1 life, 0 times" in said

    name = "Cooling-pump-2.drive-end.001.failed.csv"
    lines = (out / "rows" / name).read_text().splitlines()
    assert len(lines) == 1 + 61
    header, row = lines[0].split(","), lines[1].split(",")
    told = dict(zip(header, row, strict=True))
    assert told["time"] == "2023-06-01T00:10:05.250000Z"
    assert told["velocity_rms [mm/s]"] == told["acceleration_wide_x [m/s2]"] == "1.0"
    assert (told["velocity_crest"], told["temperature [degC]"]) == ("3.0", "30.0")
    labels = json.loads((out / "labels.json").read_text())
    assert labels[f"rows/{name}"] == [
        ["2023-06-03T02:10:05.250000Z", "2023-06-03T12:10:05.250000Z"]
    ]
    facts = (out / "facts.csv").read_text()
    assert "Cooling-pump-2.drive-end,,CLASS2,KSB,Etanorm,S-17" in facts
    assert '"CLASS1", "CLASS2"' in (out / "agent.toml").read_text()

    table = replayed(out, capsys)
    assert re.search(r"Cooling-pump-2\.drive-end +72 ", table)
    assert re.search(r"Fan\.motor +72 ", table)


def test_what_does_not_follow_monitrons_schema_is_named_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = second()
    del records[1]["eventPayload"]["assetName"]
    path = tmp_path / "two.json"
    path.write_text("\n".join(map(json.dumps, records)))
    assert main(["import", "monitron", str(path), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "record 2, line 2" in said
    assert "assetName" in said
    path.write_text(json.dumps(second()[0]) + "\n{]")
    assert main(["import", "monitron", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "record 2, line 2: not JSON" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def data_set(folder: Path) -> None:
    """Lay out a data set in two components, each file's first column a timestamp."""
    for component, sensors in (("pump", ("Sensor 1", "Sensor 2")), ("motor", ("Current",))):
        (folder / component).mkdir(parents=True)
        lines = [",".join(["Timestamp", *sensors])]
        for i in range(72):
            time = f"2020/1/{1 + i // 24} {i % 24}:05"
            far = 40 if 50 <= i < 60 else 0
            values = [str(10 + far + (i + k) % 5) for k in range(len(sensors))]
            lines.append(",".join([time, *values]))
        (folder / component / "part1.csv").write_text("\n".join(lines) + "\n")


def test_a_data_set_of_lookout_is_replayed_with_its_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_set(tmp_path / "data")
    labels = tmp_path / "labels.csv"
    labels.write_text("1/3/2020 2:05,1/3/2020 11:05\n")
    out = tmp_path / "out"
    given = ["import", "lookout", str(tmp_path / "data"), "--asset", "press 1", "--out", str(out)]
    unit = ["--unit", "motor_Current=A"]
    assert main([*given, "--offset", "+01:00", "--labels", str(labels), *unit]) == 0
    assert "press-1: 72 rows, 1 life, 1 times" in capsys.readouterr().out
    lines = (out / "rows" / "press-1.csv").read_text().splitlines()
    assert lines[0] == "asset,time,motor_Current [A],pump_Sensor-1,pump_Sensor-2"
    assert lines[1] == "press-1,2019-12-31T23:05:00.000000Z,10.0,10.0,11.0"
    table = replayed(out, capsys)
    assert re.search(r"press-1 +72 ", table)
    assert "fault" in table


def test_runs_of_what_lookout_predicted_are_labels_where_there_are_no_others(
    tmp_path: Path,
) -> None:
    data_set(tmp_path / "data")
    results = tmp_path / "results.jsonl"
    sensors = [{"name": "component_5feceb66\\sensor0", "value": 0.02346}]
    lines = [
        {"timestamp": "2020-01-01T22:24:00.000000", "prediction": 0,
         "prediction_reason": "MACHINE_OFF"},
        *(
            {"timestamp": f"2020-01-01T22:{m}:00.000000", "prediction": 1,
             "prediction_reason": "ANOMALY_DETECTED", "anomaly_score": 0.72385,
             "diagnostics": sensors}
            for m in (25, 26)
        ),
        {"timestamp": "2020-01-01T22:27:00.000000", "prediction": 0,
         "prediction_reason": "NO_ANOMALY_DETECTED", "anomaly_score": 0.1,
         "diagnostics": sensors},
    ]  # fmt: skip
    results.write_text("\n".join(map(json.dumps, lines)) + "\n")
    out = tmp_path / "out"
    given = ["import", "lookout", str(tmp_path / "data"), "--asset", "p", "--out", str(out)]
    assert main([*given, "--offset", "Z", "--results", str(results)]) == 0
    assert json.loads((out / "labels.json").read_text()) == {
        "rows/p.csv": [["2020-01-01T22:25:00.000000Z", "2020-01-01T22:26:00.000000Z"]]
    }
    assert main([*given, "--offset", "Z"]) == 2  # never into a folder that holds something


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("data/pump/part1.csv", "Timestamp,a\n2020/1/1 0:05,x\n", "part1.csv:2, column 'a': 'x'"),
        ("data/pump/part1.csv", "Timestamp,a\nnoon,1\n", "part1.csv:2, column 'Timestamp'"),
        ("data/pump/part1.csv", "Timestamp,a\n2020/1/1 0:05,1,2\n", "part1.csv:2: 3 cells"),
        ("labels.csv", "Start,End\n", "labels.csv:1"),
        ("labels.csv", "1/3/2020 2:05,1/2/2020 2:05\n", "labels.csv:1: ends before it starts"),
    ],
)
def test_what_lookout_would_not_take_is_named_with_its_place(
    name: str, text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_set(tmp_path / "data")
    (tmp_path / "labels.csv").write_text("1/3/2020 2:05,1/3/2020 11:05\n")
    (tmp_path / name).write_text(text)
    given = ["import", "lookout", str(tmp_path / "data"), "--asset", "p", "--offset", "Z"]
    labels = ["--labels", str(tmp_path / "labels.csv"), "--out", str(tmp_path / "out")]
    assert main([*given, *labels]) == 2
    assert said in capsys.readouterr().err
