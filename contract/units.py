"""Units of measure: a small table of what machines report in, and the linear ways between them.

A unit belongs to one quantity; only units of one quantity are converted into each other, so that a
torque in Nm is never taken for an energy in J, nor psia (absolute) for psi (which does not say). A
unit that is not in the table is refused, never guessed. Names are case-sensitive.

Two of SenML's names (RFC 8428) mean something else to people at machines: ``g`` is the gram there
and standard gravity here, as everybody who measures vibration writes it; ``C``, the coulomb, is
what others write for degrees Celsius and is refused here. A SenML decoder calls ``from_senml``.
"""

import difflib
import functools
from fractions import Fraction

_TABLE = """
ratio: 1 1, / 1, % 1/100, /100 1/100, /1000 1/1000, ppm 1e-6, ppb 1e-9
count: count 1
temperature: K 1, degC 1 + 273.15, Cel 1 + 273.15, degR 5/9, degF 5/9 + 2298.35/9
pressure: Pa 1, hPa 100, kPa 1000, MPa 1e6, mbar 100, bar 1e5, psi 4.4482216152605/0.00064516,
  mmHg 133.322387415, inH2O 249.08891, atm 101325
absolute pressure: Paa 1, kPaa 1000, mbara 100, bara 1e5, psia 4.4482216152605/0.00064516
gauge pressure: Pag 1, kPag 1000, mbarg 100, barg 1e5, psig 4.4482216152605/0.00064516
acceleration: m/s2 1, mm/s2 1/1000, g 9.80665, gn 9.80665, mgn 0.00980665, ft/s2 0.3048,
  in/s2 0.0254
speed: m/s 1, mm/s 1/1000, um/s 1e-6, in/s 0.0254, ft/s 0.3048, ft/min 0.3048/60, m/min 1/60,
  m/h 1/3600, mm/h 1/3600000, km/h 1/3.6, mph 1609.344/3600, kn 1852/3600
length: m 1, km 1000, cm 1/100, mm 1/1000, um 1e-6, nm 1e-9, in 0.0254, mil 2.54e-5, ft 0.3048,
  kft 304.8
area: m2 1, cm2 1e-4, mm2 1e-6
volume: m3 1, l 1/1000, ml 1e-6, gal 0.003785411784, ft3 0.028316846592
frequency: Hz 1, kHz 1000, MHz 1e6, 1/s 1, 1/min 1/60, 1/h 1/3600, rpm 1/60, deg/s 1/360,
  rad/s 1/6.283185307179586
angle: rad 1, mrad 1/1000, deg 3.141592653589793/180
solid angle: sr 1
latitude: lat 1
longitude: lon 1
time: s 1, ms 1/1000, us 1e-6, ns 1e-9, min 60, h 3600, d 86400
current: A 1, mA 1/1000, uA 1e-6, kA 1000
voltage: V 1, mV 1/1000, uV 1e-6, kV 1000
charge: As 1, mAh 3.6, Ah 3600
resistance: ohm 1, Ohm 1, mohm 1/1000, kohm 1000, Mohm 1e6, Gohm 1e9
conductance: S 1, mS 1/1000, uS 1e-6
conductivity: S/m 1, mS/cm 1/10, uS/cm 1e-4
capacitance: farad 1, mF 1/1000, uF 1e-6, nF 1e-9
inductance: henry 1, mH 1/1000, uH 1e-6
magnetic flux: Wb 1
magnetic flux density: T 1, mT 1/1000, uT 1e-6
power: W 1, mW 1/1000, kW 1000, MW 1e6, hp 745.69987158227022, PS 735.49875
apparent power: VA 1, kVA 1000, MVA 1e6
reactive power: var 1, kvar 1000, Mvar 1e6
energy: J 1, kJ 1000, MJ 1e6, Ws 1, Wh 3600, kWh 3.6e6, MWh 3.6e9
apparent energy: VAs 1, VAh 3600, kVAh 3.6e6
reactive energy: vars 1, varh 3600, kvarh 3.6e6
energy per length: J/m 1, Wh/km 3.6
force: N 1, mN 1/1000, kN 1000, MN 1e6, lbf 4.4482216152605, kgf 9.80665
torque: Nm 1, mNm 1/1000, kNm 1000, lbf.ft 1.3558179483314004, lbf.in 0.1129848290276167
strain: m/m 1, um/m 1e-6
mass: kg 1, gram 1/1000, mg 1e-6, t 1000, lb 0.45359237, lbm 0.45359237
density: kg/m3 1, kg/l 1000, g/l 1, mg/l 1/1000, mg/m3 1e-6, ug/m3 1e-9
volume flow: m3/s 1, m3/min 1/60, m3/h 1/3600, l/s 1/1000, l/min 1/60000, l/h 1/3600000,
  ml/min 1/60000000, gpm 0.003785411784/60, cfm 0.028316846592/60
mass flow: kg/s 1, g/s 1/1000, kg/min 1/60, kg/h 1/3600, t/h 1/3.6, lbm/s 0.45359237,
  pps 0.45359237, lbm/h 0.45359237/3600
mass flow per pressure: kg/s/Pa 1, pps/psi 0.00064516/9.80665, lbm/s/psi 0.00064516/9.80665
dynamic viscosity: Pa.s 1, mPa.s 1/1000, cP 1/1000
kinematic viscosity: m2/s 1, mm2/s 1e-6, cSt 1e-6
amount of substance: mol 1
catalytic activity: kat 1
luminous intensity: cd 1
luminous flux: lm 1
luminance: cd/m2 1
illuminance: lx 1
irradiance: W/m2 1
radioactivity: Bq 1
absorbed dose: Gy 1
equivalent dose: Sv 1
relative humidity: %RH 1
battery level: %EL 1
battery life: EL 1
acidity: pH 1
turbidity: NTU 1
level: dB 1
sound pressure level: dBspl 1, Bspl 10
A-weighted sound level: dBA 1
power level: dBW 1, dBm 1 + -30
heart beats: beats 1
heart rate: beat/min 1
data: bit 1, B 8, KiB 8192, MB 8e6, GB 8e9
data rate: bit/s 1, kbit/s 1000, Mbit/s 1e6, B/s 8, kB/s 8000, MB/s 8e6
"""
"""Per quantity its units: what one is in the quantity's first unit, and where its zero lies there.

All exact by definition (BIPM, NIST SP 811), but for mmHg and inH2O, which are conventional, and pi.
The gallon is the US one, hp the mechanical and PS the metric horsepower.
"""

_SENML = {"g": "gram", "C": "As", "F": "farad", "H": "henry"}
"""SenML's names that mean something else here, or would be mistaken."""

_MEANT = {
    "C": "degC (temperature) or As (charge)",
    "F": "degF (temperature) or farad",
    "H": "henry (inductance) or h (hours)",
    "°C": "degC",
    "°F": "degF",
    "°": "deg",
    "celsius": "degC",
    "fahrenheit": "degF",
    "G": "g (standard gravity)",
    "ips": "in/s",
    "lpm": "l/min",
    "": '"1" (a quantity without a unit)',
}
"""What people write, and what they may mean by it."""
_PLAIN = str.maketrans({"µ": "u", "μ": "u", "²": "2", "³": "3", "·": ".", "Ω": "ohm"})


def _exact(number: str) -> Fraction:
    above, _, below = number.partition("/")
    return Fraction(above) / Fraction(below or 1)


def _read(table: str) -> dict[str, tuple[str, Fraction, Fraction]]:
    units = {}
    for line in table.strip().replace(",\n", ",").splitlines():
        quantity, _, entries = line.partition(": ")
        for entry in entries.split(","):
            name, factor, *offset = entry.split()
            units[name] = quantity, _exact(factor), _exact(offset[1] if offset else "0")
    return units


_UNITS = _read(_TABLE)


def check(unit: str) -> None:
    """Refuse a unit that is not in the table.

    Raises:
        ValueError: names the nearest that is.

    >>> check("mm/s")
    >>> check("mm/sec")
    Traceback (most recent call last):
    ...
    ValueError: unknown unit 'mm/sec': did you mean mm/s, mm2/s or mm/s2?
    """
    if unit in _UNITS:
        return
    meant = _MEANT.get(unit)
    if meant is None:
        plain = unit.strip().translate(_PLAIN).casefold()
        folded = [name for name in _UNITS if name.casefold() == plain]
        near = folded or difflib.get_close_matches(unit, _UNITS, n=3, cutoff=0.5)
        meant = " or ".join(filter(None, (", ".join(near[:-1]), *near[-1:])))
    if meant:
        raise ValueError(f"unknown unit {unit!r}: did you mean {meant}?")
    raise ValueError(f'unknown unit {unit!r}: see docs/quality.md; "1" is a plain number')


def quantity(unit: str) -> str:
    """Return what a unit measures.

    >>> quantity("rpm"), quantity("g")
    ('frequency', 'acceleration')
    """
    check(unit)
    return _UNITS[unit][0]


def known() -> dict[str, tuple[str, ...]]:
    """Return the units of each quantity."""
    units: dict[str, tuple[str, ...]] = {}
    for name, (measured, _, _) in _UNITS.items():
        units[measured] = (*units.get(measured, ()), name)
    return units


@functools.lru_cache(1024)
def convert(unit_from: str, unit_to: str) -> tuple[float, float]:
    """Return factor and offset: a value in ``unit_to`` is ``value * factor + offset``.

    Both are the nearest floats to the exact numbers.

    Raises:
        ValueError: a unit is unknown, or the two measure different quantities.

    >>> convert("degC", "degF")
    (1.8, 32.0)
    >>> convert("rpm", "Hz")
    (0.016666666666666666, 0.0)
    """
    check(unit_from)
    check(unit_to)
    one, factor, offset = _UNITS[unit_from]
    other, factor_to, offset_to = _UNITS[unit_to]
    if one != other:
        raise ValueError(f"{unit_from} ({one}) cannot be converted to {unit_to} ({other})")
    return float(factor / factor_to), float((offset - offset_to) / factor_to)


def from_senml(name: str) -> str:
    """Return the unit that a SenML record means by a name (RFC 8428, 12.1, and RFC 8798).

    >>> from_senml("g"), from_senml("Cel")
    ('gram', 'Cel')
    """
    unit = _SENML.get(name, name)
    check(unit)
    return unit
