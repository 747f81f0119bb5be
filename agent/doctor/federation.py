"""The fleet: can the server be reached, and does what came from it fit this device?"""

import importlib.metadata
import shutil
import socket
import sqlite3
import ssl
import sys
from contextlib import closing
from pathlib import Path

from agent.config import AgentConfig, Federation, Tls
from agent.doctor.broker import certificates, refusal
from agent.doctor.finding import Finding, ok, warning
from agent.doctor.sources import PATIENCE_S
from agent.rollout import file_name, live_version
from agent.store import open_readonly
from contract import VERSION, load_model
from contract.errors import ContractError


def server(config: AgentConfig) -> Finding:
    """Check that the fleet's server can be reached; the agent works without."""
    federation = config.federation
    if federation == Federation():
        return ok("fleet", "none is configured")
    beside = Path(sys.executable).with_name("runout-node")
    if not beside.exists() and shutil.which("runout-node") is None:
        return warning("fleet", "runout-node is not installed", "install Runout anew")
    host, _, number = federation.superlink.rpartition(":")
    host = host.strip("[]")
    if not number.isdecimal() or not host:
        text = f"federation.superlink {federation.superlink!r} is no address"
        return warning("fleet", text, "write it as host:port")
    if federation.ca:
        found = certificates(Tls(ca=federation.ca), "fleet")
        if found.level != "ok":
            return warning("fleet", found.text, found.mend)
    try:
        with socket.create_connection((host, int(number)), timeout=PATIENCE_S) as plain:
            if federation.ca:
                context = ssl.create_default_context(cafile=federation.ca)
                context.set_alpn_protocols(["h2"])
                context.wrap_socket(plain, server_hostname=host).close()
    except OSError as error:
        text, mend = refusal(host, error)
        return warning("fleet", f"{federation.superlink}: {text}; the agent works without", mend)
    return ok("fleet", f"{federation.superlink} takes connections")


def bundle(config: AgentConfig) -> Finding:
    """Check that the app which the server sent to Flower's own node is of this program's version.

    ``runout-node`` takes none: its app is this program's.
    """
    try:
        mine = importlib.metadata.version("runout")
    except importlib.metadata.PackageNotFoundError:
        return ok("fleet app", "Runout runs from a folder, and is not installed")
    apps = sorted(
        (path for path in (config.state / "flwr" / "apps").glob("*.runout.*") if path.is_dir()),
        key=lambda path: path.stat().st_mtime,
    )
    if not apps:
        return ok("fleet app", f"none from the server: this is version {mine}")
    # publisher.name.version.digest
    theirs = ".".join(apps[-1].name.split(".")[2:-1])
    if theirs != mine:
        text = f"the server's is version {theirs}, this device's {mine}"
        return warning("fleet app", text, "update the older of the two")
    return ok("fleet app", f"version {theirs}, as this device")


def releases(config: AgentConfig) -> Finding:
    """Check that what judges can be loaded, and whether what was offered last was refused."""
    state = config.state
    if not (state / "store.db").exists():
        return ok("releases", "none yet")
    said = []
    try:
        with closing(open_readonly(state)) as db:
            live = {spec.name: live_version(db, spec.name) for spec in config.asset_class}
            last = db.execute(
                "SELECT version, verdict, reason FROM rollout ORDER BY id DESC LIMIT 1"
            ).fetchone()
    except (ContractError, sqlite3.DatabaseError) as error:
        return ok("releases", f"cannot be asked ({error}): see store")
    for name, version in live.items():
        if not version:
            continue
        path = state / "models" / "releases" / file_name(name, version)
        try:
            release = load_model(path)
        except ContractError as error:
            return warning("releases", str(error), "the agent's own models judge: train a new one")
        contract = release.manifest.contract
        if contract != VERSION:
            text = f"{path.name} is of contract {contract}, this is {VERSION}"
            return warning("releases", text, "update the older of server and device")
        said.append(f"{path.name} judges")
    if last is not None and last[1] in {"rejected", "rolled back"}:
        what = "refused" if last[1] == "rejected" else last[1]
        return warning(
            "releases",
            f"release {last[0]} was {what}: {last[2]}",
            "look at it on the server; what judged before goes on",
        )
    return ok("releases", ", ".join(said) or "the device's own models judge")
