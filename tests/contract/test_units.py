"""Units are converted exactly, within a quantity; what is not known is refused."""

import re
import tomllib
from math import pi
from pathlib import Path
from typing import Any

import pytest

from contract import units
from simulator.machines.pump import Pump

ROOT = Path(__file__).parents[2]

# By definition, or as printed in NIST SP 811, appendix B.8.
FACTORS = [
    ("bar", "Pa", 1e5),
    ("psi", "Pa", 6894.757),
    ("psia", "kPaa", 6.894757),
    ("mbar", "kPa", 0.1),
    ("MPa", "bar", 10),
    ("g", "m/s2", 9.80665),
    ("gn", "mm/s2", 9806.65),
    ("in/s", "mm/s", 25.4),
    ("mil", "um", 25.4),
    ("kft", "m", 304.8),
    ("rpm", "Hz", 1 / 60),
    ("1/min", "rpm", 1),
    ("rad/s", "rpm", 30 / pi),
    ("kHz", "Hz", 1000),
    ("deg", "rad", pi / 180),
    ("hp", "W", 745.6999),
    ("MW", "kW", 1000),
    ("lbf.ft", "Nm", 1.355818),
    ("gpm", "m3/s", 6.309020e-5),
    ("m3/h", "l/min", 1000 / 60),
    ("l/s", "m3/h", 3.6),
    ("cfm", "m3/s", 4.719474e-4),
    ("lbm/s", "kg/s", 0.4535924),
    ("pps", "lbm/s", 1),
    ("kg/h", "kg/s", 1 / 3600),
    ("pps/psi", "kg/s/Pa", 0.45359237 / 6894.757),
    ("d", "min", 1440),
    ("us", "ms", 1e-3),
    ("mA", "A", 1e-3),
    ("kV", "mV", 1e6),
    ("kWh", "J", 3.6e6),
    ("uS/cm", "S/m", 1e-4),
    ("mg/m3", "kg/m3", 1e-6),
    ("%", "ppm", 1e4),
    ("KiB", "bit", 8192),
    ("Mbit/s", "MB/s", 1 / 8),
    ("lb", "gram", 453.59237),
    ("ohm", "Ohm", 1),
    ("cP", "mPa.s", 1),
]


@pytest.mark.parametrize(("one", "other", "factor"), FACTORS)
def test_a_unit_is_worth_what_the_tables_say(one: str, other: str, factor: float) -> None:
    assert units.convert(one, other) == (pytest.approx(factor, rel=2e-7), 0.0)


@pytest.mark.parametrize(
    ("one", "other", "value", "same"),
    [
        ("degC", "degF", 100.0, 212.0),
        ("degF", "degC", 32.0, 0.0),
        ("degF", "degR", 0.0, 459.67),
        ("degR", "K", 491.67, 273.15),
        ("Cel", "degC", 21.5, 21.5),
        ("K", "Cel", 0.0, -273.15),
        ("dBm", "dBW", 30.0, 0.0),
        ("dBW", "dBm", 0.0, 30.0),
        ("Bspl", "dBspl", 8.5, 85.0),
    ],
)
def test_a_scale_with_another_zero_has_an_offset(
    one: str, other: str, value: float, same: float
) -> None:
    factor, offset = units.convert(one, other)
    assert value * factor + offset == pytest.approx(same, abs=1e-12)


def test_every_unit_converts_within_its_quantity_and_back() -> None:
    for names in units.known().values():
        for one in names:
            assert units.convert(one, one) == (1.0, 0.0)
            for other in names:
                factor, offset = units.convert(one, other)
                back, back_offset = units.convert(other, one)
                assert (7.5 * factor + offset) * back + back_offset == pytest.approx(7.5, rel=1e-9)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Nm", "J"), ("psi", "psia"), ("W", "VA"), ("%", "%RH"), ("dB", "dBA"), ("g", "gram")],
)
def test_units_of_two_quantities_are_not_converted(one: str, other: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{one} (")) as raised:
        units.convert(one, other)
    assert f"cannot be converted to {other} ({units.quantity(other)})" in str(raised.value)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("C", "degC (temperature) or As (charge)"),
        ("°C", "degC"),
        ("RPM", "rpm"),
        ("m³/h", "m3/h"),
        ("µm", "um"),
        ("kΩ", "kohm"),
        ("ips", "in/s"),
        ("m3/hr", "m3/h"),
        ("", '"1"'),
        ("furlong/fortnight", "see docs/quality.md"),
    ],
)
def test_an_unknown_unit_is_refused_and_the_nearest_named(wrong: str, meant: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"unknown unit {wrong!r}")) as raised:
        units.check(wrong)
    assert meant in str(raised.value)
    with pytest.raises(ValueError, match="unknown unit"):
        units.convert("K", wrong)


def found_units(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["unit"]} if isinstance(node.get("unit"), str) else set()
        return own.union(*map(found_units, node.values()))
    return set().union(*map(found_units, node)) if isinstance(node, list) else set()


def test_what_the_examples_and_the_simulator_use_is_known() -> None:
    used = set(Pump.units)
    for path in ROOT.glob("configs/**/*.toml"):
        used |= found_units(tomllib.loads(path.read_text()))
    assert {"pps/psi", "mm/s", "degR"} <= used
    for unit in used:
        units.check(unit)


def test_the_manual_lists_every_unit() -> None:
    manual = (ROOT / "docs/quality.md").read_text()
    for quantity, names in units.known().items():
        assert f"| {quantity} | {' '.join(f'`{name}`' for name in names)} |" in manual


# RFC 8428, section 12.1, and RFC 8798, section 2: symbols of the registry.
PRIMARY = """m kg g s A K cd mol Hz rad sr N Pa J W C V F Ohm S Wb T H Cel lm lx Bq Gy Sv kat m2 m3
l m/s m/s2 m3/s l/s W/m2 cd/m2 bit bit/s lat lon pH dB dBW Bspl count / % %RH %EL EL 1/s 1/min
beat/min beats S/m B VA VAs var vars J/m kg/m3 deg""".split()  # noqa: SIM905  # as it is printed
# RFC 8798, section 3: secondary unit, its primary unit, scale and offset.
SECONDARY = [
    *[("ms", "s", 1e-3, 0), ("min", "s", 60, 0), ("h", "s", 3600, 0), ("MHz", "Hz", 1e6, 0)],
    *[("kW", "W", 1e3, 0), ("kVA", "VA", 1e3, 0), ("kvar", "var", 1e3, 0), ("Ah", "C", 3600, 0)],
    *[("Wh", "J", 3600, 0), ("kWh", "J", 3.6e6, 0), ("varh", "vars", 3600, 0)],
    *[("kvarh", "vars", 3.6e6, 0), ("kVAh", "VAs", 3.6e6, 0), ("Wh/km", "J/m", 3.6, 0)],
    *[("KiB", "B", 1024, 0), ("GB", "B", 1e9, 0), ("Mbit/s", "bit/s", 1e6, 0)],
    *[("B/s", "bit/s", 8, 0), ("MB/s", "bit/s", 8e6, 0), ("mV", "V", 1e-3, 0)],
    *[("mA", "A", 1e-3, 0), ("dBm", "dBW", 1, -30), ("ug/m3", "kg/m3", 1e-9, 0)],
    *[("mm/h", "m/s", 1 / 3600000, 0), ("m/h", "m/s", 1 / 3600, 0), ("ppm", "/", 1e-6, 0)],
    *[("/100", "/", 1e-2, 0), ("/1000", "/", 1e-3, 0), ("hPa", "Pa", 100, 0), ("mm", "m", 1e-3, 0)],
    *[("cm", "m", 1e-2, 0), ("km", "m", 1000, 0), ("km/h", "m/s", 1 / 3.6, 0)],
]


def test_every_unit_of_senml_is_known_by_its_own_name() -> None:
    for name in PRIMARY:
        units.check(units.from_senml(name))
    for name, primary, scale, offset in SECONDARY:
        both = units.from_senml(name), units.from_senml(primary)
        assert units.convert(*both) == pytest.approx((scale, offset), rel=1e-15)


def test_senml_has_its_own_gram_and_coulomb() -> None:
    assert units.convert(units.from_senml("g"), "kg") == (1e-3, 0.0)
    assert units.quantity("g") == "acceleration"
    assert units.quantity(units.from_senml("C")) == "charge"
    assert units.quantity(units.from_senml("F")) == "capacitance"
    with pytest.raises(ValueError, match="unknown unit 'hogshead'"):
        units.from_senml("hogshead")
