"""How many pods of a sort run on each node, kept up to date as pods come and go.

A `Counter` counts the pods that all of some terms select: what spreading and (anti-)affinity of a waiting pod need. A
`Holder` counts the pods that *have* a term: what their affinity means for a pod that waits. Both are arrays with one
value a row of the node table; the topology domains are added up by podfit.py. Invariant: each array is what counting
all placed pods anew would give.

Bounds: `COUNTERS` counters, the longest unused go first; a holder goes when nothing has its term and there are many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from tiphys.api.selectors import LabelSelector
from tiphys.scheduler.profile import Profile, Term
from tiphys.scheduler.table import Ints

COUNTERS = 1024
HOLDERS = 4096

AVOID, NEED, ATTRACT = "avoid", "need", "attract"
"""Required anti-affinity, required affinity, preferred terms (with a weight of either sign)."""

Placed = Iterable[tuple[Profile, int, bool]]
"""Profile, row and whether it is terminating, of pods on nodes."""


def one_namespace(selector: LabelSelector, namespace: str) -> Term:
    """Return the term that selects the pods of one namespace."""
    return Term(selector, frozenset({namespace}), None, "")


@dataclass(slots=True, eq=False)
class Counter:
    """Counts the pods that every term selects; terminating ones too unless `living`."""

    terms: tuple[Term, ...]
    living: bool
    values: Ints


@dataclass(slots=True, eq=False)
class Holder:
    """Counts the pods that have a term of one sort."""

    sort: str
    term: Term
    weight: int
    values: Ints
    total: int = 0


class PodCounts:
    """See the module's docstring. `labels_of` returns the labels of a namespace."""

    def __init__(
        self,
        capacity: int,
        labels_of: Callable[[str], Mapping[str, str]],
        placed_in: Callable[[frozenset[str] | None], Placed],
    ) -> None:
        self._capacity = capacity
        self._labels_of = labels_of
        self._placed_in = placed_in
        self._counters: dict[tuple[tuple[Term, ...], bool], Counter] = {}
        self._holders: dict[tuple[str, Term, int], Holder] = {}
        self._counting: dict[Profile, list[Counter]] = {}
        """Which counters count a pod of a profile; emptied when there is a new counter."""
        self._concerning: dict[Profile, list[Holder]] = {}
        """Which holders' terms select a pod of a profile; emptied when there is a new holder."""

    def selects(self, term: Term, profile: Profile) -> bool:
        """Return whether a term selects a pod."""
        if profile.namespace not in term.namespaces and (
            term.namespace_selector is None or not term.namespace_selector.matches(self._labels_of(profile.namespace))
        ):
            return False
        return term.selector.matches(profile.labels)

    def count(self, terms: tuple[Term, ...], *, living: bool = False) -> Ints:
        """Return the number of pods on each row that all the terms select. Never write to it."""
        key = (terms, living)
        counter = self._counters.pop(key, None)
        if counter is None:
            counter = self._new_counter(terms, living)
        self._counters[key] = counter
        return counter.values

    def concerning(self, profile: Profile) -> list[Holder]:
        """Return the holders whose term selects a pod of this profile."""
        found = self._concerning.get(profile)
        if found is None:
            found = [holder for holder in self._holders.values() if self.selects(holder.term, profile)]
            if len(self._concerning) > HOLDERS:
                self._concerning.clear()
            self._concerning[profile] = found
        return found

    def change(self, profile: Profile, row: int, terminating: bool, change: int) -> None:
        """A pod came to a row (`change` 1) or left it (-1)."""
        counting = self._counting.get(profile)
        if counting is None:
            counting = [c for c in self._counters.values() if all(self.selects(t, profile) for t in c.terms)]
            if len(self._counting) > HOLDERS:
                self._counting.clear()
            self._counting[profile] = counting
        for counter in counting:
            if not (counter.living and terminating):
                counter.values[row] += change
        if profile.affinity or profile.anti_affinity or profile.attractions:
            self._change_holders(profile, row, change)

    def grow(self, capacity: int) -> None:
        """The table has more rows."""
        if capacity == self._capacity:
            return
        more = np.zeros(capacity - self._capacity, np.int64)
        for counter in self._counters.values():
            counter.values = np.concatenate([counter.values, more])
        for holder in self._holders.values():
            holder.values = np.concatenate([holder.values, more])
        self._capacity = capacity

    def namespaces_changed(self) -> None:
        """Labels of a namespace changed: forget what was chosen by them."""
        self._counters = {
            key: counter
            for key, counter in self._counters.items()
            if all(term.namespace_selector is None for term in counter.terms)
        }
        self._counting.clear()
        self._concerning.clear()

    def _new_counter(self, terms: tuple[Term, ...], living: bool) -> Counter:
        counter = Counter(terms, living, np.zeros(self._capacity, np.int64))
        anywhere = any(term.namespace_selector is not None for term in terms)
        names = None if anywhere else frozenset.intersection(*(term.namespaces for term in terms))
        known: dict[Profile, bool] = {}
        for profile, row, terminating in self._placed_in(names):
            if living and terminating:
                continue
            selected = known.get(profile)
            if selected is None:
                selected = known[profile] = all(self.selects(term, profile) for term in terms)
            if selected:
                counter.values[row] += 1
        if len(self._counters) >= COUNTERS:
            del self._counters[next(iter(self._counters))]
        self._counting.clear()
        return counter

    def _change_holders(self, profile: Profile, row: int, change: int) -> None:
        keys = [(AVOID, term, 0) for term in profile.anti_affinity]
        keys += [(NEED, term, 1) for term in profile.affinity]
        keys += [(ATTRACT, term, weight) for weight, term in profile.attractions]
        for key in keys:
            holder = self._holders.get(key)
            if holder is None:
                self._tidy()
                holder = self._holders[key] = Holder(*key, np.zeros(self._capacity, np.int64))
                self._concerning.clear()
            holder.values[row] += change
            holder.total += change

    def _tidy(self) -> None:
        if len(self._holders) >= HOLDERS:
            self._holders = {key: holder for key, holder in self._holders.items() if holder.total}
