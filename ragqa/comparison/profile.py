"""How large a comparison is: a few sizes under a name."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from ragqa.errors import InputError
from ragqa.settings import Settings, at_least
from ragqa.training.recipe import Recipe, recipe_help


@dataclass(frozen=True, slots=True)
class Profile(Settings):
    """Sizes of a comparison.

    Attributes:
        name: what reports call it.
        examples: questions to fine-tune on, for each mode.
        seen, unseen: test questions about products that were trained on, and that were not; some of them have no
            product at all (the recipe's `without_product`).
        training_seeds: each trains adapters of its own; the questions stay the same.
        curve: numbers of examples that further adapters are trained on, for the learning curve.
        curve_questions: test questions about unseen products that those are asked.
        timed: questions that every arm is asked once more, one at a time, to measure its latency.
        limit: rows of the catalogue to read; None reads all.
        recipe: fields of `ragqa.Recipe` in place of its defaults; the sizes and seeds above go before it.
    """

    name: str = "own"
    examples: int = 1000
    seen: int = 150
    unseen: int = 300
    training_seeds: tuple[int, ...] = (0,)
    curve: tuple[int, ...] = ()
    curve_questions: int = 100
    timed: int = 20
    limit: int | None = None
    recipe: dict[str, Any] = field(default_factory=dict)

    def _problems(self) -> list[str]:
        problems = at_least(
            self, {"examples": 1, "seen": 1, "unseen": 1, "curve_questions": 1, "timed": 1}
            | ({} if self.limit is None else {"limit": 1}),
        )  # fmt: skip
        if not self.training_seeds or len(set(self.training_seeds)) < len(self.training_seeds):
            problems.append(f"training_seeds must be different whole numbers, not {self.training_seeds!r}")
        if any(not 0 < size < self.examples for size in self.curve):
            problems.append(f"curve must hold numbers from 1 to below examples ({self.examples}), not {self.curve!r}")
        unknown = [name for name in self.recipe if name not in recipe_help()]
        if unknown:
            problems.append(f"a recipe has no field {', '.join(map(repr, unknown))}")
        return problems

    def make_recipe(self, examples: int | None = None, training_seed: int = 0) -> Recipe:
        """The recipe of one of its trainings.

        Raises:
            InputError: its fields contradict each other.
        """
        sizes = {"test": max(self.seen, self.unseen), "examples": examples or self.examples}
        return Recipe.from_dict(self.recipe | sizes | {"training_seed": training_seed})

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary of all fields."""
        return asdict(self) | {"training_seeds": list(self.training_seeds), "curve": list(self.curve)}


PROFILES: Final = {
    # Real weights and every step, on sizes from which nothing can be concluded.
    "smoke": Profile(
        "smoke", examples=12, seen=5, unseen=12, curve=(6,), curve_questions=4, timed=1,
        recipe={
            "validation": 40, "judged": 8, "watched": 4, "max_new_tokens": 24, "context_tokens": 256, "products": 2,
            "number_questions": 1, "evaluations": 1, "batch_tokens": 512,
        },
    ),
    # For a laptop: within 75 minutes on two cores.
    "quick": Profile(
        "quick", seen=120, unseen=280, curve=(100,), curve_questions=60, timed=12,
        recipe={"max_new_tokens": 64, "evaluations": 6, "seed": 1},
    ),
    # For a GPU.
    "full": Profile(
        "full", examples=20000, seen=1500, unseen=3000, training_seeds=(0, 1, 2), curve=(500, 2000, 8000),
        curve_questions=500, timed=200,
        recipe={
            "validation": 1000, "judged": 400, "watched": 200, "rank": 32, "products": 5, "context_tokens": 1024,
            "max_new_tokens": 160, "batch_size": 64, "batch_tokens": 4096, "accumulation": 1, "evaluations": 10,
        },
    ),
}  # fmt: skip


def make_profile(profile: str | Profile, **overrides: Any) -> Profile:
    """A profile by its name, with other values for some of its fields.

    Raises:
        InputError: there is no such profile or field, or a value is out of range.
    """
    if isinstance(profile, str):
        if profile not in PROFILES:
            raise InputError(f"no profile {profile!r}; there are {', '.join(PROFILES)}")
        profile = PROFILES[profile]
    unknown = [name for name in overrides if name not in Profile.__slots__]
    if unknown:
        raise InputError(f"a profile has no field {', '.join(map(repr, unknown))}")
    return replace(profile, **overrides)
