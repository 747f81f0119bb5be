"""Features of a user's own: Python functions of the last rows, from one folder.

A function must be deterministic: its result may depend on the rows alone, not on the clock, on
chance without a seed, on files, or on what it was called with before. An agent that restarts
replays its journal, and what it then computes must be what it computed. It runs in the thread that
owns all state, so that it must be quick, and with the agent's own rights: who may write to the
folder may run code as the agent.
"""

import importlib.util
import logging
import math
import numbers
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

from contract.arrays import Floats
from contract.errors import ConfigError
from contract.spec import Function

log = logging.getLogger(__name__)

_CALL = re.compile(r"([A-Za-z_]\w*):([A-Za-z_]\w*)", re.ASCII)


class _Loaded(NamedTuple):
    spec: Function
    columns: list[int]
    call: Callable[[Floats], object]


class UserFeatures:
    """Functions, ready to be called.

    Attributes:
        names: F features.
        rows: the most rows that one of them is given.
        failures: by feature, how often it raised or returned no number.
    """

    def __init__(self, loaded: tuple[_Loaded, ...]) -> None:
        self._loaded = loaded
        self.names = tuple(one.spec.name for one in loaded)
        self.rows = max((one.spec.rows for one in loaded), default=0)
        self.failures = dict.fromkeys(self.names, 0)

    def compute(self, rows: Floats) -> Floats:
        """Return the features ``(F,)`` of the newest of rows ``(m, C)``, oldest first.

        NaN for a function that needs more rows than there are, that says NaN, or that fails: it
        raises, or returns no finite number. A failure is counted and logged the 1st, 2nd, 4th...
        time.
        """
        out = np.full(len(self._loaded), np.nan)
        for i, one in enumerate(self._loaded):
            if len(rows) < (one.spec.least or one.spec.rows):
                continue
            # A copy: the function may keep it, and the window's own rows move on.
            given = np.take(rows[max(len(rows) - one.spec.rows, 0) :], one.columns, axis=1)
            given.flags.writeable = False
            try:
                out[i] = _number(one.call(given))
            except Exception as error:  # noqa: BLE001
                # Somebody else's code may raise anything; that it fails says nothing of the other
                # features, and the agent must not end for it. This is the one place it can reach.
                self._failed(one.spec, error)
        return out

    def _failed(self, spec: Function, error: Exception) -> None:
        self.failures[spec.name] += 1
        count = self.failures[spec.name]
        if count & (count - 1) == 0:  # the 1st, 2nd, 4th, 8th...
            log.warning(
                "function failed",
                extra={
                    "feature": spec.name,
                    "call": spec.call,
                    "error": f"{type(error).__name__}: {error}"[:300],
                    "count": count,
                },
            )


def _number(result: object) -> float:
    if not isinstance(result, numbers.Real):
        raise TypeError(f"it returned {type(result).__name__}, not a number")
    value = float(result)
    if math.isinf(value):
        raise ValueError("it returned infinity")
    return value


def load(functions: tuple[Function, ...], folder: Path, columns: tuple[str, ...]) -> UserFeatures:
    """Load functions from the modules of one folder, and from nowhere else.

    Args:
        functions: to be called, in this order.
        folder: holds ``module.py`` for each ``module:function``. It does not become importable:
            a module may import what is installed, but not its neighbours.
        columns: names of a row's C columns.

    Raises:
        ConfigError: names that repeat, no such module, function or channel, a module that lies
            outside the folder or cannot be loaded; names the function and the mend.
    """
    names = [function.name for function in functions]
    if len(set(names)) != len(names):
        raise ConfigError(f"functions: each name once, not {names}")
    modules: dict[str, ModuleType] = {}
    loaded = []
    for spec in functions:
        where = f"function {spec.name!r}"
        matched = _CALL.fullmatch(spec.call)
        if matched is None:
            raise ConfigError(f"{where}: call is module:function, not {spec.call!r}")
        for channel in spec.channels:
            if channel not in columns:
                raise ConfigError(f"{where}: no channel {channel!r}; there are {list(columns)}")
        module, name = matched[1], matched[2]
        if module not in modules:
            modules[module] = _load_module(module, folder, where)
        call = getattr(modules[module], name, None)
        if call is None:
            raise ConfigError(f"{where}: {module}.py has no function {name!r}")
        if not callable(call):
            raise ConfigError(f"{where}: {name!r} in {module}.py cannot be called")
        own = [columns.index(channel) for channel in spec.channels or columns]
        loaded.append(_Loaded(spec, own, call))
    return UserFeatures(tuple(loaded))


def _load_module(name: str, folder: Path, where: str) -> ModuleType:
    try:
        inside = folder.resolve(strict=True)
        path = (inside / f"{name}.py").resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: symbolic links in a circle
        raise ConfigError(f"{where}: no module {name}.py in {folder}") from error
    if not path.is_relative_to(inside):
        raise ConfigError(f"{where}: {folder / name}.py leads out of its folder, to {path}")
    spec = importlib.util.spec_from_file_location(f"runout_function_{name}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ConfigError(f"{where}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their own module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        # Somebody else's code may raise anything as it is loaded; it is for its author to mend.
        sys.modules.pop(spec.name, None)
        raise ConfigError(f"{where}: {path}: {type(error).__name__}: {error}") from error
    return module
