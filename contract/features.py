"""Which features there are, in which order: what a vector's columns mean."""

from dataclasses import dataclass

from contract.spec import AssetClass


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """The columns of a feature vector: statistic by statistic over all channels, then functions.

    >>> from contract.spec import Channel
    >>> pump = AssetClass("pump", (Channel("flow", "m3/h"), Channel("speed", "rpm")),
    ...                   stats=("mean_8", "std_8"))
    >>> FeatureSpec.of(pump).names
    ('flow.mean_8', 'speed.mean_8', 'flow.std_8', 'speed.std_8')
    """

    channels: tuple[str, ...]
    stats: tuple[str, ...]
    functions: tuple[str, ...] = ()

    @classmethod
    def of(cls, asset_class: AssetClass) -> "FeatureSpec":
        """Return the features of an asset class."""
        functions = tuple(function.name for function in asset_class.functions)
        return cls(asset_class.channel_names, asset_class.stats, functions)

    @property
    def parts(self) -> tuple[tuple[str, str], ...]:
        """Return channel and statistic per column; of a function its name, twice."""
        rolling = tuple((channel, stat) for stat in self.stats for channel in self.channels)
        return rolling + tuple((name, name) for name in self.functions)

    @property
    def names(self) -> tuple[str, ...]:
        """Return ``channel.statistic`` per column, then the functions' names."""
        rolling = tuple(f"{channel}.{stat}" for stat in self.stats for channel in self.channels)
        return rolling + self.functions

    def __len__(self) -> int:
        return len(self.channels) * len(self.stats) + len(self.functions)

    def columns(self, wanted: tuple[str, ...]) -> list[int]:
        """Return the columns of some statistics and functions, in the order of ``wanted``."""
        width = len(self.channels)
        found = []
        for name in wanted:
            if name in self.functions:
                found.append(len(self.stats) * width + self.functions.index(name))
            else:
                at = self.stats.index(name) * width
                found += range(at, at + width)
        return found
