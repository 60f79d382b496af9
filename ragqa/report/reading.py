"""Looking things up in a result, and writing its numbers: one way for the words, the tables and the pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

Row = Mapping[str, Any]
Verdict = Literal["above", "below", "open", "unknown"]

OWN: Final = "retrieval_context"
COPY: Final = "copy"
PLAIN: Final = "plain"
WITHOUT_MODEL: Final = "choice_without_model"
GOLD: Final = "retrieval_gold"
NONE: Final = "n/a"

SETS: Final = {"unseen": "unseen products", "seen": "seen products"}
KINDS: Final = {
    "exact": "exact title",
    "partial": "title in part",
    "typo": "mistyped title",
    "reordered": "title re-ordered",
    "clue": "title in part and words of the description",
    "absent": "product not in the catalogue",
    "nonsense": "about nothing",
}
RANKS: Final = {"rank:1": "first", "rank:2-3": "second or third", "rank:4-10": "4th to 10th", "rank:none": "not found"}
GROUPS: Final = {
    "all": "all questions",
    **{f"kind:{kind}": label for kind, label in KINDS.items()},
    "one_product": "one product fits",
    "several": "several products fit",
    **{group: f"right product {label}" for group, label in RANKS.items()},
}
# What bootstrap arithmetic leaves of an exact zero.
_ZERO: Final = 1e-9
_ALPHA: Final = 0.05


@dataclass(frozen=True)
class Reading:
    """A raw result and its analysis, ready to be looked up.

    Attributes:
        raw: what a run measured, question by question.
        analysis: the statistics made from it. Arms, sets, kinds and measures may be missing.
    """

    raw: Row
    analysis: Row

    @cached_property
    def arms(self) -> list[str]:
        """Names of the arms, in the order of the tables: those that explain come last."""
        return sorted(self.raw["arms"], key=lambda arm: bool(self.raw["arms"][arm].get("extra")))

    @cached_property
    def sets(self) -> list[str]:
        """The sets of questions that there are, unseen products first."""
        return [name for name in SETS if any(q["set"] == name for q in self.raw["questions"])]

    @property
    def main_set(self) -> str:
        """The set that the answer is about: unseen products, where they were asked about."""
        return self.sets[0] if self.sets else "unseen"

    @cached_property
    def groups(self) -> list[str]:
        """Groups of questions that have figures, in a fixed order; one that is not known here comes last."""
        found = {row["group"] for row in self.analysis["cells"]}
        return [group for group in GROUPS if group in found] + sorted(found - set(GROUPS))

    @cached_property
    def kinds(self) -> list[str]:
        """The groups by kind of question."""
        return [group for group in self.groups if group.startswith("kind:")]

    @cached_property
    def _cells(self) -> dict[tuple[str, ...], Row]:
        rows = [*self.analysis["cells"], *self.analysis.get("corpus", ())]
        return {(r["arm"], r["set"], r["group"], r["metric"]): r for r in rows if r["mean"] is not None}

    @cached_property
    def _pairs(self) -> dict[tuple[str, ...], Row]:
        rows = self.analysis.get("pairs", ())
        return {(r["arm"], r["against"], r["set"], r["group"], r["metric"]): r for r in rows}

    @cached_property
    def _costs(self) -> dict[str, Row]:
        return {row["arm"]: row for row in self.analysis.get("cost", ())}

    def label(self, arm: str) -> str:
        """How an arm is called; its name where it has no label."""
        return str(self.raw["arms"].get(arm, {}).get("label", arm))

    @cached_property
    def measures(self) -> dict[str, str]:
        """The measures in the order of columns, and what they are called."""
        return {metric["name"]: metric["label"] for metric in self.analysis["metrics"]}

    def cell(self, arm: str, name: str, group: str = "all", metric: str = "f1") -> Row | None:
        """A mean with its interval, or None where it was not measured."""
        return self._cells.get((arm, name, group, metric))

    def pair(self, arm: str, against: str, name: str, group: str = "all", metric: str = "f1") -> Row | None:
        """A difference between two arms with its interval, or None."""
        return self._pairs.get((arm, against, name, group, metric))

    def cost(self, arm: str) -> Row | None:
        """Time and memory of an arm, or None."""
        return self._costs.get(arm)


def verdict(pair: Row | None) -> Verdict:
    """What a difference says: "above" and "below" only where the interval and the corrected test agree.

    "open" is a difference that may be chance, "unknown" one that was not measured.
    """
    if pair is None or pair.get("low") is None or pair.get("high") is None:
        return "unknown"
    p = pair.get("p_holm")
    if p is not None and p >= _ALPHA:
        return "open"
    if pair["low"] > _ZERO:
        return "above"
    return "below" if pair["high"] < -_ZERO else "open"


def number(value: float | None, digits: int = 3) -> str:
    """A number with a fixed count of decimals, more where it would else read as zero without being it."""
    if value is None:
        return NONE
    if abs(value) < _ZERO:
        value = 0.0
    written = f"{value:.{digits}f}"
    while value and float(written) == 0 and digits < 6:
        digits += 1
        written = f"{value:.{digits}f}"
    return written.removeprefix("-") if float(written) == 0 else written


def interval(row: Row | None, key: str = "mean", digits: int = 3) -> str:
    """A number and its 95 % interval: "0.930 [0.910, 0.950]"."""
    if row is None or row.get(key) is None:
        return NONE
    if row.get("low") is None or row.get("high") is None:
        return f"{number(row[key], digits)} [no interval]"
    return f"{number(row[key], digits)} [{number(row['low'], digits)}, {number(row['high'], digits)}]"


def probability(p: float | None) -> str:
    """A p-value that keeps its digits where it is small."""
    if p is None:
        return NONE
    return f"{p:.3f}" if p >= 0.001 else f"{p:.4f}" if p >= 0.0001 else "< 0.0001"


def whole(value: float | None) -> str:
    """A count with thousands separated."""
    return NONE if value is None else f"{round(value):,}"


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return NONE
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def group_label(group: str) -> str:
    """A group of questions in words."""
    return GROUPS.get(group, group)


def listed(parts: list[str]) -> str:
    """Join parts as a sentence does: "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
