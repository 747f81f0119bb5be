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
