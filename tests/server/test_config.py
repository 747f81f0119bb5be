"""Mistakes in the configuration name the file, the key and the mend."""

import typing
from pathlib import Path

import pytest

from contract.errors import ConfigError
from server.cli import main
from server.config import ServerConfig, StrategyName, load
from server.strategy import STRATEGIES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("deadlin_s = 3.0", ["unknown key 'deadlin_s'", "did you mean 'deadline_s'?"]),
        ("[gaurd]\nrows_cap = 3.0", ["unknown key 'gaurd'", "did you mean 'guard'?"]),
        ("[guard]\nrow_cap = 3.0", ["'guard.row_cap'", "did you mean 'rows_cap'?"]),
        ("rounds = 0", ["rounds", ">= 1"]),
        ('rounds = "three"', ["rounds", "int"]),
        ('strategy = "fedprox"', ["strategy", "fedprox"]),
        ('listen = "9092"', ["listen", "host:port"]),
        ('listen = "127.0.0.1:99999"', ["listen", "host:port"]),
        ('listen = "0.0.0.0:9092"', ["listen", "beyond loopback", "[tls]"]),
        (
            'listen = "0.0.0.0:9092"\n[tls]\nca = "no"\ncert = "no"\nkey = "no"',
            ["tls.ca", "no file 'no'"],
        ),
        ("rounds = ", ["not TOML", "Invalid value"]),
    ],
)
def test_a_mistake_names_file_key_and_mend(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "server.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_the_shipped_configuration_says_the_defaults() -> None:
    assert load(ROOT / "configs" / "server.toml") == ServerConfig()


def test_every_strategy_has_a_name_in_the_configuration() -> None:
    assert set(typing.get_args(StrategyName)) == set(STRATEGIES)


def test_check_says_what_the_server_would_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", str(ROOT / "configs" / "server.toml")]) == 0
    assert "127.0.0.1:9092" in capsys.readouterr().out


def test_a_mistake_ends_the_command_with_2_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "--config", str(tmp_path / "none.toml")]) == 2
    assert capsys.readouterr().err.startswith("runout-server: ")
