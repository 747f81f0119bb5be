"""A PostgreSQL server of the tests' own, where the programs are installed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.conftest import free_port


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a PostgreSQL server of one's own; yields its URL."""
    pytest.importorskip("psycopg", reason="runout[postgres] is not installed")
    programs = {name: _program(name) for name in ("initdb", "postgres")}
    missing = [name for name, path in programs.items() if path is None]
    if missing:
        pytest.skip(f"no {' and '.join(missing)}: PostgreSQL is not installed")
    folder = tmp_path_factory.mktemp("postgres")
    other = [] if os.geteuid() else ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    if other:  # the server refuses to run as root
        for above in (folder, *folder.parents):
            if above.stat().st_uid == 0 and above != Path("/"):
                above.chmod(above.stat().st_mode | 0o011)
        os.chown(folder, 65534, 65534)
    port = free_port()
    data = folder / "data"
    subprocess.run(
        [*other, str(programs["initdb"]), "-D", str(data), "-U", "runout", "-A", "trust", "-N"],
        check=True,
        capture_output=True,
        cwd=folder,
    )
    server = subprocess.Popen(
        [
            *(*other, str(programs["postgres"]), "-D", str(data), "-p", str(port)),
            *("-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"),
            *("-c", "fsync=off"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=folder,
    )
    try:
        assert server.stderr is not None
        for line in server.stderr:
            if b"ready to accept connections" in line:
                break
        yield f"postgresql+psycopg://runout@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(timeout=60)
        assert server.stderr is not None
        server.stderr.close()


def _program(name: str) -> str | None:
    found = shutil.which(name)
    if found is None:
        places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
        found = str(places[-1]) if places else None
    return found
