"""A mistake in a configuration is named, with its mend, before anything starts."""

from pathlib import Path

import pytest

from agent.cli import main
from agent.config import load
from contract.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("agent*.toml"))
MINIMAL = """
[[asset_class]]
name = "pump"
channels = [{ name = "vibration", unit = "mm/s" }]
"""


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_configuration_that_is_shipped_is_good(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load(path).asset_class
    assert main(["check", "--config", str(path)]) == 0
    assert f"{path}: good" in capsys.readouterr().out


MISTAKES = {
    "a misspelt key": (
        "[mqtt]\nhots = '127.0.0.1'",
        "unknown key 'mqtt.hots'; did you mean 'host'",
    ),
    "a misspelt table": ("[mqqt]\nport = 1", "unknown key 'mqqt'; did you mean 'mqtt'"),
    "a key like none": ("[keep]\nxyzzy = 1", "unknown key 'keep.xyzzy'; known: checkpoint_s"),
    "another type": ("[mqtt]\nport = 'many'", "Expected `int`, got `str` - at `$.mqtt.port`"),
    "a port that is none": ("[mqtt]\nport = 70000", "$.mqtt.port"),
    "a broker beyond loopback": ("[mqtt]\nhost = 'broker.example'", "give [mqtt.tls] ca, or say"),
    "a missing password": ("[mqtt]\npassword_file = '/none'", "mqtt.password_file: there is no"),
    "a missing authority": ("[mqtt.tls]\nca = '/none'", "mqtt.tls.ca: there is no file '/none'"),
    "a name with a blank": ("[node]\nname = 'pump house'", "node.name 'pump house' must be"),
    "an unknown class": ("[assets]\n'*' = 'fan'", "no asset class 'fan'; there are pump"),
    "a time that is no column": (
        "[[mqtt.subscribe]]\ntopic='x'\ncolumns=['a']\ntime='b'",
        "'b' is none of columns: a - at `$.mqtt.subscribe[0]`",
    ),
    "a time without columns": ("[[mqtt.subscribe]]\ntopic='x'\ntime='b'", "there are no columns"),
    "columns without a name": (
        "[[mqtt.subscribe]]\ntopic='x'\nformat='csv'\ncolumns=['', '']",
        "columns: none of them is a channel",
    ),
    "a time of what has its own": (
        "[[mqtt.subscribe]]\ntopic='x'\nformat='cobs'\ncolumns=['a', 'b']\ntime='a'",
        "time: a cobs record has its own",
    ),
    "more columns than a record has": (
        f"[[mqtt.subscribe]]\ntopic='x'\nformat='cobs'\ncolumns={[f'c{i}' for i in range(1025)]}",
        "columns: 1025; a cobs record has 1024",
    ),
    "a unit of no channel": (
        "[[mqtt.subscribe]]\ntopic='plant/{asset}'\nunit='degF'",
        "'plant/{asset}' names no channel: give units, a table by channel",
    ),
    "a unit twice": (
        "[[mqtt.subscribe]]\ntopic='{channel}'\nunit='degF'\nunits={a='degF'}",
        "unit: units, a table by channel, says it already",
    ),
    "a unit that is none": (
        "[[mqtt.subscribe]]\ntopic='{channel}'\nunit='degf'",
        "unknown unit 'degf': did you mean degF",
    ),
    "an asset that is none": ("[[mqtt.subscribe]]\ntopic='x'\nasset='a b'", "asset 'a b' must be"),
    "a host that is none": (
        "[mqtt.sparkplug]\nhost_id='a/b'",
        "'a/b' is no Sparkplug name: not empty, without + / # - at `$.mqtt.sparkplug`",
    ),
    "a group that is none": ("[mqtt.sparkplug]\ngroups=['a#']", "'a#' is no Sparkplug name"),
    "an asset of another word": (
        "[mqtt.sparkplug]\nasset='{x}'",
        "asset '{x}' is not made of {group}, {node} and {device}",
    ),
    "a port of a device that is none": (
        "[[source]]\nkind='modbus'\nurl='tcp://plc:99999'\nasset='a'\npoll=[{channel='x',register=0}]",
        "url: 'tcp://plc:99999': write it as tcp://host:port",
    ),
    "a unit of a register that is none": (
        "[[source]]\nkind='modbus'\nurl='x'\nasset='a'\npoll=[{channel='x',register=0,unit='metre'}]",
        "unknown unit 'metre'",
    ),
    "no TOML": ("[mqtt", "not TOML"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_named_with_its_mend(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, words = MISTAKES[what]
    path = tmp_path / "agent.toml"
    path.write_text(MINIMAL + text)
    with pytest.raises(ConfigError) as error:
        load(path)
    assert str(path) in str(error.value)
    assert words in str(error.value)
    assert main(["run", "--config", str(path)]) == 2
    assert words in capsys.readouterr().err


APART = """
[[asset_class]]
name = "fan"
channels = [{ name = "flow", unit = "m3/h" }, { name = "temp", unit = "degC" }]

[[asset_class]]
name = "pump"
every_s = 1.0
channels = [{ name = "flow", unit = "m3/h" }, { name = "temp", unit = "degC" }]

[assets]
"fan-*" = "fan"
"pump-*" = "pump"

[[mqtt.subscribe]]
topic = "plant/{asset}/{channel}"

[[mqtt.subscribe]]
topic = "rows/{asset}"

[[source]]
kind = "modbus"
url = "tcp://plc"
poll = [
  { asset = "fan-1", channel = "flow", register = 0 },
  { asset = "fan-1", channel = "temp", register = 1, every_s = 10 },
  { asset = "pump-1", channel = "flow", register = 2 },
  { asset = "pump-1", channel = "temp", register = 3, every_s = 10 },
]
"""


def test_channels_that_come_by_themselves_without_a_grid_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(APART)
    assert main(["check", "--config", str(path)]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert len(told) == 2
    assert all("asset_class fan has no every_s" in line for line in told)
    assert "from 'plant/{asset}/{channel}'" in told[0]
    assert "'fan-1' are polled at several rates" in told[1]


def test_facts_that_cannot_be_read_are_found_when_it_is_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, facts = tmp_path / "agent.toml", tmp_path / "facts.csv"
    path.write_text(f"facts = '{facts}'\n{MINIMAL}facts = ['kw']\n")
    facts.write_text("asset,kw\npump-1,7.5\n")
    assert main(["check", "--config", str(path)]) == 0
    assert "facts.csv: 1 assets" in capsys.readouterr().out
    facts.write_text(f"asset,kw\npump-1,7.5\npump-2,{'7' * 131_073}\n")
    assert main(["check", "--config", str(path)]) == 2
    told = capsys.readouterr().err
    assert f"{facts}:3: field larger than field limit" in told
    assert "mend or empty the cell" in told


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('stats = ["median_4"]', "statistic 'median_4' is none of"),
        ('stats = ["mean_4", "mean_4"]', "named once each"),
        ('health = { kind = "moments", stats = ["std_3"] }', "not among the class's stats"),
        ('rul = [{ kind = "ridge" }, { kind = "ridge" }]', "at most one RUL model of each kind"),
        ('rul = [{ kind = "rigde" }]', "rigde"),
        ('rul = [{ kind = "ridge", penlaty = 1 }]', "did you mean 'penalty'"),
        ("hop = 0", "$.asset_class[0].hop"),
    ],
)
def test_a_mistake_in_a_class_is_named(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(MINIMAL + text)
    with pytest.raises(ConfigError) as error:
        load(path)
    assert words in str(error.value)


@pytest.mark.parametrize("name", ["health", "readings", "a/b", "a b", ""])
def test_a_channel_cannot_have_a_name_that_a_topic_could_not(name: str, tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(MINIMAL.replace("vibration", name))
    with pytest.raises(ConfigError, match=r"channel|reserved"):
        load(path)


def test_a_file_that_is_not_there_is_said_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--config", str(tmp_path / "none.toml")]) == 2
    assert "none.toml: cannot be read (No such file or directory)" in capsys.readouterr().err


def test_a_setting_stands_in_place_of_what_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(MINIMAL)
    config = load(path, ["mqtt.port=1884", "node.name=rpi-7", "keep.power_loss_safe=false"])
    assert (config.mqtt.port, config.name, config.keep.power_loss_safe) == (1884, "rpi-7", False)
    for setting in ("mqtt.prot=1", "mqtt.port", "asset_class.name=fan"):
        with pytest.raises(ConfigError):
            load(path, [setting])


def test_a_setting_of_a_list_names_its_place(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(MINIMAL)
    config = load(path, ["asset_class.0.hop=4", "asset_class.0.channels.0.unit=um/s"])
    (pump,) = config.asset_class
    assert (pump.hop, pump.channels[0].unit) == (4, "um/s")
    for setting in ("asset_class.1.hop=4", "asset_class.0.channels.x=1", "asset_class.-1.hop=4"):
        with pytest.raises(ConfigError, match="the place in a list of 1, from 0"):
            load(path, [setting])
    with pytest.raises(ConfigError, match="'name' is not a table"):
        load(path, ["asset_class.0.name.x=1"])


def test_beyond_loopback_a_trusted_network_must_be_called_so(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(MINIMAL + "[mqtt]\nhost = '10.0.0.5'\ninsecure = true")
    assert load(path).mqtt.host == "10.0.0.5"


def test_the_status_of_a_state_folder_where_nothing_ran_is_said_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(MINIMAL)
    assert main(["status", "--config", str(path), "--set", f"node.state={tmp_path}"]) == 2
    assert "has the agent run with this state folder?" in capsys.readouterr().err
