"""``runout-server score``: scores stored telemetry ahead, once or time after time."""

import signal
import threading
from collections.abc import Callable

from sqlalchemy.exc import OperationalError

from contract.errors import ConfigError, RunoutError
from server.config import ServerConfig
from server.scores import open_engine, run_once


def score(config: ServerConfig, say: Callable[[str], None], *, once: bool) -> int:
    """Run until a signal ends it, or once; returns 1 where not all files could be scored."""
    if config.scores is None:
        raise ConfigError("there is no [scores] in the configuration: say which files of whom")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    engine = open_engine(config)
    try:
        while True:
            try:
                done = run_once(config, engine, say, stop)
            except ConfigError as error:
                if once:
                    raise
                say(f"{error}; looked for again in {config.scores.every_s:.0f} s")
            except OperationalError as error:
                words = str(error).partition("\n")[0]
                if once:
                    raise RunoutError(f"scores.database: {words}") from error
                say(f"scores.database: {words}; tried again in {config.scores.every_s:.0f} s")
            else:
                say(
                    f"{done.rows:,} rows of {done.files} files; {done.known} were scored before, "
                    f"{len(done.failed)} could not be"
                )
                if once:
                    return 1 if done.failed or stop.is_set() else 0
            if stop.wait(config.scores.every_s):
                return 0
    finally:
        engine.dispose()
