"""One training of a cohort: statistics, rounds of fitting, evaluation, a registered release.

A phase ends at its deadline with those who answered. Sums of nodes that are absent come from the
ledger, so they count all the same; weights count only from those who answer.
"""

import hashlib
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from flwr.app import RecordDict

from contract import VERSION
from contract.arrays import Arrays, Floats
from contract.errors import ContractError
from contract.model_spec import Moments, Ridge, Sklearn
from contract.models.kinds import tells
from contract.models.ridge import Basis, first_of
from contract.release import Manifest, Release
from contract.spec import AssetClass, rul_name
from contract.update import EVALUATE, FIT, GRADIENTS, SHAPE, STATISTICS, Request, Update
from server import checkpoint, evaluate, messages, readiness
from server.arrivals import Arrivals, read_update
from server.checkpoint import Checkpoint
from server.guard import Limits, Weights, balance, judge
from server.merge import (
    Contribution,
    Key,
    Ledger,
    Statistics,
    Told,
    gram_total,
    kinds_total,
    ledger_folder,
    noisy_gram_total,
    noisy_statistics,
    shape_total,
)
from server.registry import Line, Registry, cohorts
from server.rounds import Fleet, Heard, Late, Patience
from server.status import Phase, Status
from server.strategy import WeightsMerger
from server.trust import Trusted, trusted, trusted_statistics
from server.wave import Policy

log = logging.getLogger("runout.server")

HAND_OUT_S = 30.0
"""A release is laid into a folder, which takes no longer; who is away gets it later."""
EPSILON = float(np.finfo(np.float64).eps)
WORST_CONDITION = 1e-6 / EPSILON
"""Of sums: beyond it, what is solved of them holds to less than six digits."""
REFRESH = 2.0
"""The standardisation is renewed when the rows behind it have grown by this factor."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a training is run; see ``server.config.ServerConfig``."""

    state: Path
    asset_class: str
    rounds: int
    min_nodes: int
    deadline_s: float
    interval_s: float
    strategy: str
    serve: bool
    guard: Limits
    ask_s: float = 0.0
    new_lives: int = 0
    ready_s: float = 0.0
    quorum: float = 1.0
    parent: bool = False
    several: bool = False
    waves: Policy = field(default_factory=Policy)


@dataclass(slots=True)
class Cohort:
    """What is kept of one asset class: registry, pinned line and the two ledgers of sums."""

    registry: Registry
    statistics: Ledger
    ridge: Ledger

    @classmethod
    def open(cls, state: Path, asset_class: str) -> "Cohort":
        """Open, or make, what is kept of a class."""
        ledgers = ledger_folder(state, asset_class)
        cohort = cls(
            Registry(state, asset_class),
            Ledger(ledgers / "statistics"),
            Ledger(ledgers / "ridge"),
        )
        for problem in cohort.statistics.unreadable + cohort.ridge.unreadable:
            log.warning("a contribution in the ledger cannot be used: %s", problem)
        return cohort


@dataclass(slots=True)
class Training:
    """Runs one training after the other on a fleet, and writes down how they go.

    Attributes:
        settings: how.
        fleet: the nodes.
        status: where to say what goes on.
        now: seconds since 1970 UTC.
        cohort: None until it is known which class is trained.
        trial: what the class is tried as; None: as it is.
        why: the training runs, where somebody or something asked for it.
        silent: nodes that let a deadline pass in the last training, and were not heard of since.
        measured: what each node measured of the newest candidate.
        conditions: by how much solving multiplied a rounding of its sums, by model.
        distrusted: nodes whose ridge sums were left out of the newest model, see ``server.trust``.
        reduced: nodes whose ridge sums counted in part.
    """

    settings: Settings
    fleet: Fleet
    status: Status
    now: Callable[[], float] = time.time
    cohort: Cohort | None = None
    trial: AssetClass | None = None
    why: str = ""
    _count: int = field(default=0, init=False)
    silent: set[int] = field(default_factory=set, init=False)
    measured: dict[str, evaluate.Measured] = field(default_factory=dict, init=False)
    conditions: dict[str, float] = field(default_factory=dict, init=False)
    distrusted: set[str] = field(default_factory=set, init=False)
    reduced: set[str] = field(default_factory=set, init=False)
    _kept: Checkpoint = field(default_factory=lambda: Checkpoint(0, "", 0.0), init=False)
    _nodes: list[int] = field(default_factory=list, init=False)
    _joined: list[int] = field(default_factory=list, init=False)

    def open(self) -> Release | None:
        """Find the cohort without asking anyone; returns what is handed out, if anything is."""
        if self.cohort is None:
            known = cohorts(self.settings.state)
            name = self.settings.asset_class or (known[0] if len(known) == 1 else "")
            if name:
                self.cohort = Cohort.open(self.settings.state, name)
                self.status.asset_class = name
        if self.cohort is None:
            return None
        current = self.cohort.registry.current()
        self.status.hand_out(current)
        return current

    def run(self, *, even_if_nothing_new: bool = True) -> Release | None:
        """Train with the nodes that are ready; returns the new release, or None.

        A training that was under way when its process ended goes on where it was.
        """
        before = self.open()
        done = self._begin(anyway=even_if_nothing_new)
        if done is None:
            done = self._train(before)
        checkpoint.clear(self.settings.state, self._of)
        return done

    @property
    def _of(self) -> str:
        """Return whose checkpoint it is: with several classes each has one."""
        return self.settings.asset_class if self.settings.several else ""

    def there(self) -> list[int]:
        """Return the nodes that are there and, as far as that is known, run the class."""
        online, name = self.fleet.online(), self.settings.asset_class
        if not self.settings.several:
            return online
        return [n for n in online if name in self.fleet.classes.get(n, (name,))]

    def _begin(self, *, anyway: bool) -> Release | None:
        """Take up what was left; returns the release it brought, if it was as far as that."""
        state = self.settings.state
        try:
            kept = checkpoint.read(state, self._of)
        except ContractError as error:
            log.warning("a training that did not end is given up: %s", error)
            kept = None
        if kept is not None and kept.tries >= checkpoint.MOST_TRIES:
            log.warning("training %d is given up after %d tries", kept.training, kept.tries)
            self._note("abandoned", training=kept.training, tries=kept.tries, why=kept.why)
            kept = None
        self._count = max(self._count, self._trainings_before())
        if kept is None:
            self._count += 1
            self._kept = Checkpoint(self._count, self.why, round(self.now(), 3), anyway)
        else:
            self._kept = kept
            self._count, self.why = kept.training, kept.why
            kept.tries += 1
            self.fleet.names = kept.names | self.fleet.names
            facts = {"training": kept.training, "round": kept.round, "told": len(kept.told)}
            self._note("resumed", **facts)
            log.info(
                "training %d did not end; it goes on after round %d", *list(facts.values())[:2]
            )
        self.silent.clear()
        self.status.training = self._count
        self.status.rounds = self.settings.rounds
        self.status.seconds = {}
        self._save()
        return self._registered()

    def _registered(self) -> Release | None:
        """Return the version that a killed training had registered already."""
        version = self._kept.version
        registry = self.cohort.registry if self.cohort else None
        if not version or registry is None or version not in registry.versions():
            return None
        release = registry.get(version)
        if registry.pointed() != version:
            registry.point(version)
        told = {e.get("version") for e in registry.journal() if e["event"] == "release"}
        if version not in told:
            self._note_release(release)
        self.status.hand_out(release)
        return release

    def _save(self) -> None:
        self._kept.names = dict(self.fleet.names)
        self._kept.save(self.settings.state, self._of)

    def _train(self, before: Release | None) -> Release | None:
        self._joined = []
        self._nodes = self._ready(self.there())
        accepted = self._statistics()
        if self.cohort is None or not accepted:
            log.warning("training %d ends: no node's statistics could be used", self._count)
            return None
        if before is not None and not self._kept.anyway and self._nothing_new(before, accepted):
            log.info("nothing new since version %d: no training", before.version)
            return None
        # And who said meanwhile that it is ready.
        self._nodes = [*accepted, *self._joined]
        return self._models(before)

    def _ready(self, online: list[int]) -> list[int]:
        """Return who is ready to take part; all that are there, where nobody is asked."""
        settings = self.settings
        if not settings.ready_s:
            return online
        self._say("readiness", online)
        answers = readiness.ask(
            self.fleet, online, min(settings.ready_s, settings.deadline_s), settings.quorum
        )
        name, digest = self._wanted()
        refused = dict(answers.refused)
        for node_id, told in sorted(answers.told.items()):
            why = readiness.unfit(told, name, digest)
            if why:
                refused[node_id] = why
        ready = sorted(node_id for node_id in answers.told if node_id not in refused)
        self._close("readiness", answers.heard, ready, refused)
        # Whoever is late is asked as soon as it says that it is ready.
        self.silent.clear()
        return ready

    def _wanted(self) -> tuple[str, str]:
        """Return name and spec digest of the class that is trained; empty: not known yet."""
        line = self.cohort.registry.line() if self.cohort else None
        name = self.cohort.registry.asset_class if self.cohort else self.settings.asset_class
        return name, line.digest if line else ""

    def again(self) -> Release | None:
        """Release what the ledgers hold now, without asking anyone; None: that makes no model.

        Weights are left out: nobody can be taken out of those.
        """
        before = self.open()
        if self.cohort is None or before is None:
            return None
        self._nodes = []
        return self._models(before, weights=False)

    def _models(self, before: Release | None, *, weights: bool = True) -> Release | None:
        cohort = self._cohort()
        line = self._line()
        total = self._total(cohort.statistics.under(line.digest), line.asset_class)
        if total is None:
            return None
        arrays: Arrays = {}
        lives: dict[str, int] = {}
        if total.health.n:
            arrays |= total.health.solve().arrays("health/model/")
            arrays["health/histogram"] = total.histogram
        if line.asset_class.faults is not None:
            told = kinds_total(cohort.statistics.under(line.digest), line.asset_class.faults)
            if told is not None and tells(told):
                arrays |= told.solve().arrays("faults/model/")
        contributors = {one.node: one.epoch for one in cohort.statistics.under(line.digest).keys}
        private = line.asset_class.privacy is not None
        if (total.basis.n or private) and line.asset_class.rul:
            line, basis = (line, _plain(total)) if private else self._basis(line, total)
            arrays |= basis.arrays()
            arrays |= self._fit(line, basis, before if weights else None)
            for key in cohort.ridge.under(tie_of(line)).keys:
                if key.node in self.distrusted:
                    continue
                lives[key.node] = 0 if key.node in self.reduced else key.lives
                contributors[key.node] = max(contributors.get(key.node, 0), key.epoch)
        if not arrays:
            log.warning(
                "training %d ends: the nodes know neither healthy behaviour nor finished lives yet",
                self._count,
            )
            return None
        manifest = Manifest(
            contract=VERSION,
            asset_class=line.asset_class,
            version=cohort.registry.next_version(),
            parent=before.version if before else 0,
            created_ns=round(self.now() * 1e9),
            contributors=tuple(sorted(contributors)),
            rul_model="",
            metrics={},
            epochs=contributors,
            lives=lives,
        )
        if self.settings.parent and cohort.registry.from_parent():
            # Its own nodes get what all regions learnt, once it comes.
            log.info("training %d: its sums are for the parent", self._count)
            return None
        return self._release(manifest, arrays)

    def _total(self, told: Sequence[Contribution], spec: AssetClass) -> Statistics | None:
        """Add up statistics; None: there are none, or too few or too noisy ones."""
        if spec.privacy is None:
            found = trusted_statistics(told, self.settings.guard)
            self._note_trust(found, "statistics")
            return Statistics.of(found.contributions, spec.health)
        total = None
        try:
            if isinstance(spec.health, Moments):
                total = noisy_statistics(told, spec.health, spec.privacy)
        except ContractError as error:
            log.warning("training %d ends: %s", self._count, error)
            return None
        if total is None:
            log.warning(
                "training %d ends: statistics of %d nodes, and privacy.among is %d",
                self._count,
                len(told),
                spec.privacy.among,
            )
        return total

    def _release(self, manifest: Manifest, arrays: Arrays) -> Release:
        spec = manifest.asset_class
        candidate = Release(manifest, arrays)
        # Until it is measured, the class's first judges.
        first = evaluate.choose(spec, candidate.rul, [])
        candidate = Release(msgspec.structs.replace(manifest, rul_model=first), arrays)
        measured = self._evaluate(candidate) if candidate.rul else {}
        self.measured = measured
        rul_model = evaluate.choose(spec, candidate.rul, list(measured.values()))
        metrics = evaluate.summary(measured)
        metrics |= {f"condition/{name}": value for name, value in self.conditions.items()}
        manifest = msgspec.structs.replace(manifest, rul_model=rul_model, metrics=metrics)
        release = Release(manifest, arrays)
        # First that it will be there, then it: a version is neither lost nor made twice.
        self._kept.version = release.version
        if self._kept.training:
            self._save()
        self._cohort().registry.register(release)
        self._note_release(release)
        self.status.hand_out(release)
        log.info(
            "version %d of %s, from %d nodes: %s",
            release.version,
            spec.name,
            len(manifest.contributors),
            evaluate.in_words(metrics, rul_model),
        )
        return release

    def _note_release(self, release: Release) -> None:
        manifest = release.manifest
        self._note(
            "release",
            version=release.version,
            rul_model=manifest.rul_model,
            metrics=manifest.metrics,
            contributors=manifest.contributors,
            why=self.why,
            devices=evaluate.each(self.measured, manifest.rul_model),
        )

    # -- the phases -------------------------------------------------------------------------

    def _statistics(self) -> list[int]:
        line = self.cohort.registry.line() if self.cohort else None
        name, digest = self._wanted()
        request = self._request(STATISTICS, name, digest)
        # Only before a class is pinned are answers held: which one it is, they say together.
        first: dict[int, Update] = {}

        def against(update: Update) -> list[str]:
            return [] if line is None else judge(update, request, line.asset_class)

        def use(node_id: int, update: Update) -> None:
            if line is None:
                first[node_id] = update
            else:
                self._put(self._cohort().statistics, update, line.digest, update.head.node)

        arrivals = Arrivals(self.fleet.names, against, use)
        told = [n for n in self._nodes if line and self.fleet.names.get(n) in self._kept.told]
        missing = [n for n in self._nodes if n not in told]
        heard = self._ask("statistics", missing, messages.TRAIN, request, {}, arrivals, tie=digest)
        if line is None:
            line = self._elect(first)
            if line is None:
                self._close("statistics", heard, [], arrivals.refused)
                return []
            for node_id, update in sorted(first.items()):
                reasons = judge(update, request, line.asset_class)
                if reasons:
                    arrivals.refuse(node_id, "; ".join(reasons))
                else:
                    ledger = self._cohort().statistics
                    self._put(ledger, update, line.digest, update.head.node)
        cohort = self._cohort()
        self._fold_late()
        accepted = sorted({*told, *arrivals.accepted})
        self._kept.told = [self.fleet.name(node_id) for node_id in accepted]
        self._save()
        rows = sum(key.rows for key in cohort.statistics.under(line.digest).keys)
        known = len(cohort.statistics.under(line.digest))
        self._close(
            "statistics", heard, arrivals.accepted, arrivals.refused, rows=rows, nodes_in_sum=known
        )
        return accepted

    def _elect(self, updates: dict[int, Update]) -> Line | None:
        """Pin the spec that most nodes run: with a tie that of most rows."""
        votes: Counter[str] = Counter()
        rows: Counter[str] = Counter()
        specs: dict[str, AssetClass] = {}
        for update in updates.values():
            digest = update.head.asset_class.digest()
            specs.setdefault(digest, update.head.asset_class)
            votes[digest] += 1
            rows[digest] += update.head.rows
        if not votes:
            return None
        digest = max(votes, key=lambda d: (votes[d], rows[d], d))
        spec = specs[digest]
        cohort = Cohort.open(self.settings.state, spec.name)
        line = cohort.registry.line()
        if line is None:
            line = cohort.registry.pin(Line(digest, spec))
            cohort.registry.note("pinned", self.now(), digest=digest, votes=votes[digest])
            log.info("asset class %s is pinned at spec %s", spec.name, digest)
        self.cohort = cohort
        self.status.asset_class = spec.name
        return line

    def _basis(self, line: Line, total: Statistics) -> tuple[Line, Basis]:
        cohort = self._cohort()
        models = (model for model in line.asset_class.rul if isinstance(model, Ridge))
        shaped = next((model for model in models if model.shaping), None)
        basis = cohort.registry.basis(line)
        if basis is not None and total.basis.n < REFRESH * line.basis_rows:
            return line, basis
        basis = Basis.of(total.basis)
        if shaped is not None:
            basis = replace(basis, shape=self._shape(line, basis, first_of(shaped)))
        rows = total.basis.n
        line = cohort.registry.pin(msgspec.structs.replace(line, basis_rows=rows), basis)
        outdated = [] if line.basis_version == 1 else cohort.ridge.nodes_not_under(tie_of(line))
        cohort.registry.note(
            "basis", self.now(), version=line.basis_version, rows=rows, outdated=outdated
        )
        log.info("standardisation %d, from %.0f feature vectors", line.basis_version, rows)
        return line, basis

    def _shape(self, line: Line, basis: Basis, first: Ridge) -> Floats | None:
        """Ask along which directions random features shall look; None: nobody could say.

        Of the nodes that answer now: like the standardisation, it is a choice that all share and
        no estimate, so who is away loses nothing by it.
        """
        with self._sums(SHAPE, line, basis.arrays()) as told:
            total = gram_total(told, "first/")
        if total is None or not total.n:
            return None
        arrays = {**basis.arrays(), "first/coefficients": total.solve(first.penalty)}
        with self._sums(GRADIENTS, line, arrays) as told:
            return shape_total(told)

    @contextmanager
    def _sums(
        self, phase: Literal["shape", "gradients"], line: Line, arrays: Arrays
    ) -> Iterator[Sequence[Contribution]]:
        """Ask for sums that are used once; by node, so that order changes no bit."""
        spec = line.asset_class
        request = self._request(phase, spec.name, line.digest)
        folder = ledger_folder(self.settings.state, spec.name) / "passing"
        shutil.rmtree(folder, ignore_errors=True)  # of a training that was killed
        ledger = Ledger(folder)

        def use(_: int, update: Update) -> None:
            self._put(ledger, update, phase, update.head.node)

        arrivals = Arrivals(self.fleet.names, lambda u: judge(u, request, spec), use)
        heard = self._ask(phase, self._nodes, messages.TRAIN, request, arrays, arrivals, tie="")
        self._fold_late()
        self._close(phase, heard, arrivals.accepted, arrivals.refused)
        try:
            yield ledger.under(phase)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _fit(self, line: Line, basis: Basis, before: Release | None) -> Arrays:
        cohort, spec = self._cohort(), line.asset_class
        names = [rul_name(model) for model in spec.rul]
        ridge = next((model for model in spec.rul if isinstance(model, Ridge)), None)
        means = any(isinstance(model, Sklearn) for model in spec.rul)
        merger = WeightsMerger(self.settings.strategy, self.fleet.grid)
        weights = self._kept.weights or _start(before, line, basis)
        rounds = self.settings.rounds if means else 1
        for round_ in range(self._kept.round + 1, rounds + 1):
            wanted = names if round_ == 1 else [name for name in names if name != "ridge"]
            weights = self._fit_round(line, basis, tuple(wanted), round_, weights, merger)
            self._kept.round, self._kept.weights = round_, weights or {}
            self._save()
        fitted = dict(weights or {})
        told = self._believed(cohort.ridge.under(tie_of(line)), spec, ridge)
        private = spec.privacy
        total = gram_total(told) if private is None else noisy_gram_total(told, spec.cap_h, private)
        self.conditions = {}
        if ridge is not None and total is not None and total.n:
            fitted["ridge/coefficients"] = total.solve(ridge.penalty)
            self.conditions["ridge"] = condition = total.condition(ridge.penalty)
            if condition > WORST_CONDITION:
                log.warning(
                    "the fleet's ridge sums are solved to %.0e at best (condition %.1e): leave out "
                    "features that say the same, or raise its penalty",
                    condition * EPSILON,
                    condition,
                )
            if ridge.personal:
                fitted |= total.arrays("fleet/")
        return fitted

    def _fit_round(
        self,
        line: Line,
        basis: Basis,
        wanted: tuple[str, ...],
        round_: int,
        weights: Arrays | None,
        merger: WeightsMerger,
    ) -> Arrays | None:
        """Return the weights after one round; ridge sums go to the ledger as they come."""
        spec, tie = line.asset_class, tie_of(line)
        request = self._request(FIT, spec.name, line.digest, wanted, round_)
        told: dict[int, Weights] = {}

        def use(node_id: int, update: Update) -> None:
            if "ridge/n" in update.arrays:
                self._put(self._cohort().ridge, update, tie, update.head.node)
            own = {k: a for k, a in update.arrays.items() if k.startswith("sklearn/")}
            if own and update.head.rows:
                told[node_id] = Weights(update.head.node, float(update.head.rows), own)

        arrivals = Arrivals(self.fleet.names, lambda u: judge(u, request, spec), use)
        arrays = basis.arrays() | (weights or {})
        self._nodes, self._joined = [*self._nodes, *self._joined], []
        heard = self._ask("fit", self._nodes, messages.TRAIN, request, arrays, arrivals, tie=tie)
        in_order = [told[node_id] for node_id in sorted(told)]
        replies, said = balance(in_order, weights, self.settings.guard)
        for words in said:
            log.warning("fit round %d: %s", round_, words)
        if spec.privacy is not None and len(replies) < spec.privacy.among:
            if replies:
                log.warning(
                    "fit round %d: weights of %d nodes are not merged, privacy.among is %d",
                    round_,
                    len(replies),
                    spec.privacy.among,
                )
        elif replies:
            weights = merger.merge(round_, weights, replies) or weights
        self._fold_late()
        self._close("fit", heard, arrivals.accepted, arrivals.refused, balanced=said)
        return weights

    def _believed(
        self, told: Sequence[Contribution], spec: AssetClass, ridge: Ridge | None
    ) -> Sequence[Contribution]:
        """Return the sums that may be merged; say whose may not."""
        self.distrusted, self.reduced = set(), set()
        if ridge is None or spec.privacy is not None:
            return told  # noise hides who lies, too; there, each is clipped
        found = trusted(told, ridge.penalty, self.settings.guard)
        self._note_trust(found, "ridge")
        self.distrusted, self.reduced = set(found.left_out), set(found.reduced)
        return found.contributions

    def _note_trust(self, found: Trusted, what: str) -> None:
        for name, why in (found.reduced | found.left_out).items():
            word = "left out" if name in found.left_out else "reduced"
            log.warning("%s: its %s sums are %s: %s", name, what, word, why)
            event = word.replace(" ", "_")
            self._cohort().registry.note(event, self.now(), node=name, sums=what, why=why)

    def _evaluate(self, candidate: Release) -> dict[str, evaluate.Measured]:
        spec = candidate.manifest.asset_class
        request = self._request(EVALUATE, spec.name, spec.digest())
        arrays: Arrays = {"release": np.frombuffer(candidate.to_bytes(), dtype=np.uint8)}
        told: dict[int, Update] = {}
        arrivals = Arrivals(self.fleet.names, lambda u: judge(u, request, spec), told.__setitem__)
        heard = self._ask(
            "evaluate", self._nodes, messages.EVALUATE, request, arrays, arrivals, tie=""
        )
        self._close("evaluate", heard, arrivals.accepted, arrivals.refused)
        return {told[n].head.node: told[n].head.metrics for n in sorted(told)}

    def deploy(self, release: Release, nodes: list[int]) -> set[int]:
        """Hand a release to nodes; returns which of them have it."""
        self._say("deploy", nodes)
        said: dict[str, str] = {}

        def take(node_id: int, answer: RecordDict) -> None:
            try:
                words = messages.text_of(answer, "delivered", "delivered")
            except ContractError as error:
                words = str(error)
            said[self.fleet.name(node_id)] = words

        heard = self.fleet.ask(
            nodes,
            messages.DEPLOY,
            messages.release_content(release.to_bytes()),
            patience=Patience(min(self.settings.deadline_s, HAND_OUT_S)),
            about="deploy",
            take=take,
            heard=self._progress,
        )
        for node_id, reason in heard.failed.items():
            said[self.fleet.name(node_id)] = reason
        if self.status.released is not None:
            self.status.released.delivered |= said
        self._close("deploy", heard, heard.answered, {}, version=release.version, said=said)
        return set(heard.answered)

    # -- what the phases share --------------------------------------------------------------

    def _request(
        self, phase: str, name: str, digest: str, models: tuple[str, ...] = (), round_: int = 0
    ) -> Request:
        self.status.round = round_
        count = self._count * 100 + round_
        return Request(VERSION, phase, name, digest, count, models, trial=self.trial)

    def _ask(
        self,
        phase: Phase,
        nodes: list[int],
        kind: str,
        request: Request,
        arrays: Arrays,
        arrivals: Arrivals,
        *,
        tie: str,
    ) -> Heard:
        # Who let a deadline pass is not waited for again in this training, until it is heard of.
        nodes = [node_id for node_id in nodes if node_id not in self.silent]
        self._say(phase, nodes)
        # What a late answer is known by: enough to judge it as if it had come in time.
        about = msgspec.json.encode((phase, tie, request)).decode()
        return self.fleet.ask(
            nodes,
            kind,
            messages.request_content(request, arrays),
            patience=Patience(self.settings.deadline_s, self.settings.quorum),
            about=about,
            take=arrivals.take,
            heard=self._progress,
        )

    def _say(self, phase: Phase, nodes: list[int]) -> None:
        status = self.status
        status.phase = phase
        status.online = len(nodes)
        status.asked = [self.fleet.name(node_id) for node_id in nodes]
        status.answered, status.accepted, status.failed = [], [], {}
        self.write()

    def _progress(self, heard: Heard) -> None:
        self.status.answered = [self.fleet.name(node_id) for node_id in heard.answered]
        self.status.failed = {self.fleet.name(n): reason for n, reason in heard.failed.items()}
        self.write()

    def write(self) -> None:
        """Write the status."""
        name = self.fleet.name
        self.status.bytes_up = {name(n): size for n, size in self.fleet.bytes_up.items()}
        self.status.bytes_down = {name(n): size for n, size in self.fleet.bytes_down.items()}
        self.status.write(self.settings.state, self.now())

    def _put(self, ledger: Ledger, update: Update, tie: str, name: str) -> None:
        head = update.head
        arrays = {k: a for k, a in update.arrays.items() if not k.startswith("sklearn/")}
        if not ledger.put(Contribution(Key(name, head.epoch, tie, head.rows, head.lives), arrays)):
            log.debug("%s: epoch %d is in the ledger already", name, head.epoch)

    def _fold_late(self) -> None:
        """Take in what came after its phase had closed."""
        for late in self.fleet.late():
            if late.about.startswith("[") and self._is_another(late):
                self.fleet.put_back(late)
                continue
            self.silent.discard(late.node_id)
            if late.about == readiness.ABOUT:
                self._join_late(late)
            elif late.about.startswith("["):
                self._sum_late(late)

    def _is_another(self, late: Late) -> bool:
        """Return whether it answers a question about another class."""
        if not self.settings.several:
            return False
        _, _, request = msgspec.json.decode(late.about, type=tuple[str, str, Request])
        return request.asset_class != self.settings.asset_class

    def _join_late(self, late: Late) -> None:
        """Let a node that says now that it is ready take part from the next phase on."""
        try:
            told = readiness.read(self.fleet, late.node_id, late.content)
        except ContractError:
            return
        there = late.node_id in {*self._nodes, *self._joined}
        if not there and not readiness.unfit(told, *self._wanted()):
            self._joined.append(late.node_id)
            self._note("late", node=told.node, phase="readiness")

    def _sum_late(self, late: Late) -> None:
        cohort, line = self._cohort(), self._line()
        phase, tie, request = msgspec.json.decode(late.about, type=tuple[str, str, Request])
        if request.trial != self.trial:
            return
        try:
            update = read_update(late.content)
        except ContractError:
            return
        if judge(update, request, line.asset_class):
            return
        if phase == STATISTICS:
            self._put(cohort.statistics, update, line.digest, update.head.node)
        elif phase == FIT and "ridge/n" in update.arrays and tie == tie_of(line):
            self._put(cohort.ridge, update, tie, update.head.node)
        else:
            return
        self.fleet.names.setdefault(late.node_id, update.head.node)
        self._note("late", node=update.head.node, phase=phase)
        log.info("%s: its late answer to %s is taken in", update.head.node, phase)

    def _note(self, event: str, **facts: object) -> None:
        if self.cohort is not None:
            self.cohort.registry.note(event, self.now(), **facts)

    def _close(
        self,
        phase: Phase,
        heard: Heard,
        accepted: list[int],
        refused: dict[int, str],
        **facts: object,
    ) -> None:
        """Write down how a phase went."""
        name = self.fleet.name
        failed = {name(n): reason for n, reason in (heard.failed | refused).items()}
        self.silent.update(heard.silent)
        for node_id in heard.silent:
            failed[name(node_id)] = f"no answer in {heard.seconds:.0f} s"
        status = self.status
        status.asked = [name(n) for n in heard.asked]
        status.answered = [name(n) for n in heard.answered]
        status.accepted = [name(n) for n in accepted]
        status.failed = failed
        label = f"{phase} {status.round}" if status.round and phase == "fit" else phase
        status.seconds[label] = round(heard.seconds, 2)
        self.write()
        if self.cohort is not None:
            self.cohort.registry.note(
                "phase",
                self.now(),
                phase=label,
                training=self._count,
                asked=status.asked,
                accepted=status.accepted,
                failed=failed,
                seconds=round(heard.seconds, 2),
                **facts,
            )
        log.info(
            "%s: asked %d, used %d, in %.1f s%s",
            label,
            len(heard.asked),
            len(accepted),
            heard.seconds,
            f" ({', '.join(status.accepted)})" if len(accepted) <= 10 else "",
        )
        for who, reason in failed.items():
            log.warning("%s: %s: %s", label, who, reason)

    def _nothing_new(self, before: Release, accepted: list[int]) -> bool:
        known = before.manifest.epochs
        there = {key.node: key.epoch for key in self._contributions().keys}
        names = {self.fleet.name(node_id) for node_id in accepted}
        return all(known.get(name) == epoch for name, epoch in there.items() if name in names)

    def _contributions(self) -> Told:
        return self._cohort().statistics.under(self._line().digest)

    def _trainings_before(self) -> int:
        """Return the number of the last training in the journal: seeds follow from it."""
        if self.cohort is None:
            return 0
        numbers = [event.get("training") for event in self.cohort.registry.journal()]
        return max((n for n in numbers if isinstance(n, int)), default=0)

    def _cohort(self) -> Cohort:
        if self.cohort is None:
            raise ContractError("no asset class is known yet")
        return self.cohort

    def _line(self) -> Line:
        line = self._cohort().registry.line()
        if line is None:
            raise ContractError("nothing is pinned yet")
        return line


def tie_of(line: Line) -> str:
    """Return what ridge sums must have in common: the spec and the standardisation."""
    return hashlib.sha256(f"{line.digest} {line.basis_digest}".encode()).hexdigest()[:16]


def _plain(total: Statistics) -> Basis:
    """Return the standardisation that changes nothing: with privacy each device uses its own."""
    size = len(total.basis.mean)
    return Basis(np.zeros(size), np.ones(size))


def _start(before: Release | None, line: Line, basis: Basis) -> Arrays | None:
    """Return the weights of the release before, if they still mean the same."""
    if before is None or before.basis is None or "sklearn/w0" not in before.arrays:
        return None
    same = before.manifest.asset_class.digest() == line.digest
    if not same or not np.array_equal(before.basis.mean, basis.mean):
        return None
    if not np.array_equal(before.basis.scale, basis.scale):
        return None
    return {name: a for name, a in before.arrays.items() if name.startswith("sklearn/")}
