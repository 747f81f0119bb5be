"""What runs Runout in containers: linted, held to its own promises, its configuration loaded."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.config import load
from server.enrol import init

DEPLOY = Path(__file__).parents[1] / "deploy"
BIN = Path(sys.executable).parent


def run(*words: str | Path) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def manifests() -> list[dict[str, Any]]:
    return [
        one
        for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
        for one in yaml.safe_load_all(path.read_text())
    ]


def test_the_compose_file_is_what_the_specification_says() -> None:
    schema = ("--builtin-schema", "vendor.compose-spec")
    run(BIN / "check-jsonschema", *schema, DEPLOY / "compose.yaml")


def test_nothing_is_published_beyond_this_machine_and_nobody_is_root() -> None:
    services = compose()["services"]
    for name, service in services.items():
        for port in service.get("ports", ()):
            assert port.startswith(("127.0.0.1:", "${RUNOUT_BIND:-127.0.0.1}:")), name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        own = "USER 10001" in (DEPLOY / "Dockerfile").read_text() and "build" in service
        assert own or service.get("user", "").startswith("10001") or name == "postgres", name
        assert ":latest" not in service["image"]
        text = str(service.get("environment", {}))
        assert "PASSWORD'" not in text  # files, and no words
    known = compose()["secrets"]
    assert {s for service in services.values() for s in service.get("secrets", ())} == set(known)
    for secret in known.values():
        assert secret["file"].startswith("./secrets/")


def test_the_manifests_are_what_kubernetes_takes() -> None:
    paths = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    assert paths
    run(BIN / "kubernetes-validate", "--strict", "--no-warn", *paths)


def test_each_pod_is_bounded_watched_and_not_root() -> None:
    sets = [one for one in manifests() if one["kind"] == "StatefulSet"]
    assert {one["metadata"]["name"] for one in sets} == {"server", "mosquitto", "postgres"}
    services = {one["metadata"]["name"]: one for one in manifests() if one["kind"] == "Service"}
    for one in sets:
        template = one["spec"]["template"]
        assert services[one["spec"]["serviceName"]]["spec"]["selector"].items() <= (
            template["metadata"]["labels"].items()
        )
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        volumes = {v["name"] for v in pod["volumes"]}
        volumes |= {v["metadata"]["name"] for v in one["spec"]["volumeClaimTemplates"]}
        for container in pod["containers"]:
            assert container["resources"]["limits"]["memory"]
            assert {"readinessProbe", "livenessProbe"} <= container.keys()
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            names = {port["name"] for port in container["ports"]}
            probed = [container[p] for p in ("readinessProbe", "livenessProbe")]
            for probe in probed:
                for kind in ("httpGet", "tcpSocket"):
                    assert probe.get(kind, {}).get("port", next(iter(names))) in names
    assert [one for one in manifests() if one["kind"] == "NetworkPolicy"]


def inside(text: str, folder: Path) -> str:
    """Return a configuration with its files where a test has them."""
    for there, here in (
        ("/run/secrets/ca", "ca.crt"),
        ("/etc/runout/tls/ca.crt", "ca.crt"),
        ("/run/secrets/server_cert", "server.pem"),
        ("/etc/runout/tls/server.pem", "server.pem"),
        ("/run/secrets/server_key", "server.key"),
        ("/etc/runout/tls/server.key", "server.key"),
    ):
        text = text.replace(f'"{there}"', f'"{folder / here}"')
    for name in ("page_password", "page.password", "broker_password", "broker.password"):
        (folder / name).write_text("a word that nobody guesses\n")
        text = re.sub(rf'"[^"]*/{re.escape(name)}"', f'"{folder / name}"', text)
    return text


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_the_server_in_a_container_is_configured_with_keys_that_there_are(
    where: str, tmp_path: Path
) -> None:
    init(tmp_path / "fleet", "0.0.0.0:9092", ["server"])
    text = (DEPLOY / "compose" / "server.toml").read_text()
    if where == "kubernetes":
        (found,) = (one for one in manifests() if one["metadata"]["name"] == "runout-server")
        text = found["data"]["server.toml"]
    path = tmp_path / "server.toml"
    path.write_text(inside(text, tmp_path / "fleet"))
    config = load(path)
    assert config.node_auth
    assert config.inner.startswith("127.0.0.1:")
    assert config.fleet.password_file
    assert config.mqtt is not None
    assert config.mqtt.tls is not None
