"""Which features there are, in which order: what a vector's columns mean."""

from dataclasses import dataclass

from contract.spec import AGES, AssetClass


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """The columns of a feature vector: statistic by statistic over all channels, then one by one.

    >>> from contract.spec import Channel
    >>> pump = AssetClass("pump", (Channel("flow", "m3/h"), Channel("speed", "rpm")),
    ...                   stats=("mean_8", "std_8"))
    >>> FeatureSpec.of(pump).names
    ('flow.mean_8', 'speed.mean_8', 'flow.std_8', 'speed.std_8')
    """

    channels: tuple[str, ...]
    stats: tuple[str, ...]
    more: tuple[str, ...] = ()

    @classmethod
    def of(cls, asset_class: AssetClass) -> "FeatureSpec":
        """Return the features of an asset class."""
        functions = (function.name for function in asset_class.functions)
        more = (*functions, *asset_class.fact_names, *(AGES if asset_class.age else ()))
        return cls(asset_class.channel_names, asset_class.stats, more)

    @property
    def parts(self) -> tuple[tuple[str, str], ...]:
        """Return channel and statistic per column; of a function or fact its name, twice."""
        rolling = tuple((channel, stat) for stat in self.stats for channel in self.channels)
        return rolling + tuple((name, name) for name in self.more)

    @property
    def names(self) -> tuple[str, ...]:
        """Return ``channel.statistic`` per column, then the names of functions and facts."""
        rolling = tuple(f"{channel}.{stat}" for stat in self.stats for channel in self.channels)
        return rolling + self.more

    def __len__(self) -> int:
        return len(self.channels) * len(self.stats) + len(self.more)

    def columns(self, wanted: tuple[str, ...]) -> list[int]:
        """Return the columns of some statistics, functions and facts, in this order."""
        width = len(self.channels)
        found = []
        for name in wanted:
            if name in self.more:
                found.append(len(self.stats) * width + self.more.index(name))
            else:
                at = self.stats.index(name) * width
                found += range(at, at + width)
        return found
