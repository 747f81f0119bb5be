"""What is kept of assets is kept under a configuration: which asset is of which class, and how."""

import fnmatch

import msgspec

from agent.config import AgentConfig


class Layout(msgspec.Struct, frozen=True):
    """What the readings in a journal, and the lives in a store, mean.

    Attributes:
        assets: patterns of assets' names and their classes; the first that matches counts.
        digests: per class, of all that its state depends on.
        features: per class, of what the columns of its feature vectors mean; of classes that are
            gone, too: their lives are kept.
    """

    assets: tuple[tuple[str, str], ...]
    digests: dict[str, str]
    features: dict[str, str]

    @classmethod
    def of(cls, config: AgentConfig) -> "Layout":
        """Return what a configuration says."""
        specs = config.asset_class
        return cls(
            tuple(config.assets.items()) or (("*", specs[0].name),),
            {spec.name: spec.digest() for spec in specs},
            {spec.name: spec.features_digest() for spec in specs},
        )

    @classmethod
    def read(cls, kept: str) -> "Layout | None":
        """Read what ``text`` wrote; None: it is not known."""
        try:
            return msgspec.json.decode(kept, type=cls)
        except msgspec.DecodeError:
            return None

    def text(self, before: "Layout | None") -> str:
        """Return it to be kept, with what was known before of classes that are gone."""
        known = self.features if before is None else before.features | self.features
        return msgspec.json.encode(msgspec.structs.replace(self, features=known)).decode()

    def agrees(self, other: "Layout") -> bool:
        """Return whether all state goes on from one to the other."""
        return (self.assets, self.digests) == (other.assets, other.digests) and not any(
            self.other_features(other)
        )

    def class_of(self, asset: str) -> str:
        """Return the class of an asset; empty: it has none."""
        return next((c for p, c in self.assets if fnmatch.fnmatchcase(asset, p)), "")

    def goes_on(self, other: "Layout", asset: str) -> bool:
        """Return whether the state of an asset goes on from one to the other."""
        name = self.class_of(asset)
        return name == other.class_of(asset) and name in self.alike(other)

    def alike(self, other: "Layout") -> set[str]:
        """Return the classes that both have alike."""
        return {name for name, digest in self.digests.items() if other.digests.get(name) == digest}

    def other_features(self, other: "Layout") -> list[str]:
        """Return the classes whose feature vectors mean something else than in the other."""
        return [
            name
            for name, digest in self.features.items()
            if other.features.get(name, digest) != digest
        ]
