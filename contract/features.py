"""Which features there are, in which order: what a vector's columns mean."""

from dataclasses import dataclass

from contract.spec import AssetClass


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """The columns of a feature vector: statistic by statistic, each over all channels.

    >>> from contract.spec import Channel
    >>> pump = AssetClass("pump", (Channel("flow", "m3/h"), Channel("speed", "rpm")),
    ...                   stats=("mean_8", "std_8"))
    >>> FeatureSpec.of(pump).names
    ('flow.mean_8', 'speed.mean_8', 'flow.std_8', 'speed.std_8')
    """

    channels: tuple[str, ...]
    stats: tuple[str, ...]

    @classmethod
    def of(cls, asset_class: AssetClass) -> "FeatureSpec":
        """Return the features of an asset class."""
        return cls(asset_class.channel_names, asset_class.stats)

    @property
    def names(self) -> tuple[str, ...]:
        """Return ``channel.statistic`` per column."""
        return tuple(f"{channel}.{stat}" for stat in self.stats for channel in self.channels)

    def __len__(self) -> int:
        return len(self.channels) * len(self.stats)

    def columns(self, stats: tuple[str, ...]) -> list[int]:
        """Return the columns of some statistics, in the order of ``stats``."""
        width = len(self.channels)
        return [self.stats.index(s) * width + c for s in stats for c in range(width)]
