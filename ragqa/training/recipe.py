"""Recipes: every hyper-parameter of a fine-tuning run under one name, in Python, in TOML files and on the command line.

A recipe file is flat TOML (``learning_rate = 1e-3``); what it does not name keeps its default. `recipes/` in the
project holds some.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Self, get_args

from ragqa.errors import InputError, RagqaError, first_line
from ragqa.files import HashingFile
from ragqa.generation.choice import MOST
from ragqa.models import DEFAULT_GENERATOR
from ragqa.settings import Settings, at_least
from ragqa.training.contexts import ContextSettings, Order
from ragqa.training.splits import SplitSettings

SCHEDULES: Final = ("linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt")


def _option(default: Any, text: str) -> Any:
    """A field with its help text."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True)
class Recipe(Settings):
    """The hyper-parameters of `ragqa.fine_tune`; what each means stands in its help text (`recipe_help`)."""

    # The data
    generator: str = _option(DEFAULT_GENERATOR, "base model: a Hub id or a folder")
    examples: int = _option(1000, "questions to train on")
    validation: int = _option(600, "questions on which the choice of sources is fitted")
    judged: int = _option(128, "of them, those that the model reads for it; exact titles need no choice")
    watched: int = _option(32, "of them, those on which the loss is measured during training")
    test: int = _option(300, "questions put by in each test set, for benchmarks")
    without_product: float = _option(0.15, "share of the first questions of contexts that have no product in the index")
    fractions: tuple[float, ...] = _option(
        (0.6, 0.1, 0.2, 0.1), "shares of the products: train, validation, unseen, absent"
    )
    seed: int = _option(0, "of questions, splits and contexts")
    training_seed: int = _option(0, "of the adapter's first weights and the order of batches")
    # Contexts, for retrieval mode
    products: int = _option(3, f"candidates in a context, at most {MOST}")
    gold_fraction: float = _option(0.9, "share of the others whose context holds the right product (RAFT's P)")
    order: Order = _option("retriever", "candidates as the retriever gives them, or shuffled")
    questions_per_context: int = _option(3, "questions asked of one context, about its candidates in turn")
    number_questions: int = _option(4, "further ones of which only the source's number is learnt")
    context_tokens: int = _option(448, "limit of the prompt, in tokens")
    max_new_tokens: int = _option(80, "limit of the answer, in tokens")
    number_weight: float = _option(20.0, "weight of the source's number in the loss; other tokens weigh 1")
    # The adapter
    rank: int = _option(16, "rank of the LoRA matrices")
    alpha: float = _option(32.0, "LoRA's scale: alpha / rank, with rslora alpha / sqrt(rank)")
    dropout: float = _option(0.0, "dropout before the LoRA matrices")
    target_modules: tuple[str, ...] = _option((), "modules to adapt, by name; none: all linear layers but the head")
    dora: bool = _option(False, "DoRA (Liu et al. 2024, arXiv 2402.09353)")
    rslora: bool = _option(False, "rank-stabilised LoRA (Kalajdzievski 2023, arXiv 2312.03732)")
    # Optimisation
    epochs: float = _option(1.0, "passes over the examples")
    steps: int = _option(0, "optimiser steps in place of epochs; 0: by epochs")
    batch_size: int = _option(16, "examples in a batch, at most")
    batch_tokens: int = _option(1024, "tokens in a batch, at most; a longer example is a batch of its own")
    accumulation: int = _option(2, "batches in an optimiser step")
    learning_rate: float = _option(1e-3, "peak of the learning rate (AdamW)")
    schedule: str = _option("cosine", "course of the learning rate: " + ", ".join(SCHEDULES))
    warmup: float = _option(0.1, "share of the steps in which the learning rate rises")
    weight_decay: float = _option(0.0, "weight decay")
    max_grad_norm: float = _option(1.0, "gradients are clipped at this norm")
    gradient_checkpointing: bool = _option(False, "recompute activations: less memory, more time")
    packing: bool = _option(True, "read what examples share once; off: padded batches of like length")
    # Watching
    evaluations: int = _option(3, "evaluations on the validation questions, each with a checkpoint")
    patience: int = _option(3, "stop after this many evaluations without a better loss; 0: never")
    save_total_limit: int = _option(2, "checkpoints kept; the best is always among them")

    def _problems(self) -> list[str]:
        problems = at_least(
            self,
            dict.fromkeys(
                (
                    "examples", "validation", "test", "products", "questions_per_context", "max_new_tokens", "rank",
                    "watched", "judged", "batch_size", "batch_tokens", "accumulation", "evaluations",
                ),
                1,
            )
            | {"number_questions": 0, "save_total_limit": 2, "context_tokens": 128, "seed": 0, "training_seed": 0, "steps": 0, "patience": 0},
        )  # fmt: skip
        ranges = {
            "without_product": (0, 0.9), "gold_fraction": (0, 1), "dropout": (0, 0.9), "warmup": (0, 1),
            "weight_decay": (0, 1), "alpha": (1e-6, 1e6), "learning_rate": (1e-9, 1), "max_grad_norm": (1e-6, 1e6),
            "number_weight": (0, 1e4), "epochs": (0.001, 1e4),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                problems.append(f"{name} must be a number from {low:g} to {high:g}, not {value!r}")
        for name in ("dora", "rslora", "gradient_checkpointing", "packing"):
            if not isinstance(getattr(self, name), bool):
                problems.append(f"{name} must be true or false, not {getattr(self, name)!r}")
        for name, accepted in {"order": get_args(Order), "schedule": SCHEDULES}.items():
            if getattr(self, name) not in accepted:
                problems.append(f"{name} must be one of {', '.join(accepted)}, not {getattr(self, name)!r}")
        names: object = self.target_modules
        if not isinstance(names, tuple) or not all(isinstance(name, str) and name for name in names):
            problems.append(f"target_modules must be a list of module names, not {names!r}")
        if not isinstance(self.generator, str) or not self.generator:
            problems.append(f"generator must be a Hub id or a folder, not {self.generator!r}")
        return problems or self._contradictions()

    def _contradictions(self) -> list[str]:
        problems = []
        if self.products > MOST:
            problems.append(f"products must be at most {MOST}, which one digit can number, not {self.products}")
        if self.steps and self.epochs != 1.0:
            problems.append(f"steps {self.steps} and epochs {self.epochs:g} contradict each other; give one")
        if self.max_new_tokens + 64 > self.context_tokens:
            problems.append(
                f"context_tokens {self.context_tokens} leaves no room to show an answer of max_new_tokens "
                f"{self.max_new_tokens} in the prompt"
            )
        for make in (self.split, self.contexts):
            try:
                make()
            except InputError as error:
                problems.append(str(error))
        return problems

    def split(self) -> SplitSettings:
        """The settings of the split."""
        fractions: Any = tuple(self.fractions)
        return SplitSettings(
            train=self.examples,
            validation=self.validation,
            test=self.test,
            without_product=self.without_product,
            fractions=fractions,
            seed=self.seed,
        )

    def contexts(self) -> ContextSettings:
        """The settings of the contexts."""
        return ContextSettings(self.products, self.gold_fraction, self.order, self.seed)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make a recipe from a dictionary; lists become tuples.

        Raises:
            InputError: unknown names and bad values, all of them.
        """
        known = {f.name for f in fields(cls)}
        unknown = [name for name in values if name not in known]
        problems = [f"unknown field {name!r}" for name in unknown]
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
        try:
            recipe = cls(**given)
        except InputError as error:
            problems.append(str(error))
        except TypeError as error:
            problems.append(f"a value has the wrong type ({error})")
        if problems:
            note = f" (a recipe has: {', '.join(f.name for f in fields(cls))})" if unknown else ""
            raise InputError("; ".join(problems) + note)
        return recipe

    def to_toml(self) -> str:
        """The whole recipe as TOML, each field with its help text."""
        lines = []
        for option in fields(self):
            value = getattr(self, option.name)
            # JSON's strings, numbers, booleans and lists of them are TOML's.
            lines.append(f"{option.name} = {json.dumps(value, ensure_ascii=False)}  # {option.metadata['help']}")
        return "\n".join(lines) + "\n"


def recipe_help() -> dict[str, tuple[Any, str]]:
    """Default and help text of every field of a recipe."""
    return {f.name: (None if f.default is MISSING else f.default, f.metadata["help"]) for f in fields(Recipe)}


def read_recipe(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe from a TOML file, with `overrides` in place of what it says.

    Raises:
        InputError: the file cannot be read, or holds unknown, bad or contradictory fields; all are named.
    """
    try:
        values = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a recipe file, see recipes/") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a TOML file ({first_line(error)})") from error
    try:
        return Recipe.from_dict(values | dict(overrides or {}))
    except RagqaError as error:
        raise InputError(f"{path}: {error}") from error


def make_recipe(recipe: Recipe | str | Path | None, overrides: Mapping[str, Any]) -> Recipe:
    """A recipe, from one, a file or the defaults, with `overrides`.

    Raises:
        InputError: see `read_recipe`.
    """
    if isinstance(recipe, str | Path):
        return read_recipe(recipe, overrides)
    return Recipe.from_dict(asdict(recipe or Recipe()) | dict(overrides))


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe as a TOML file."""
    with HashingFile(path) as file:
        file.write(recipe.to_toml().encode())
