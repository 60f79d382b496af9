from pathlib import Path

import pytest
import torch

from ragqa import models
from ragqa.errors import ModelError
from ragqa.training import adapt, batches
from ragqa.training.adapt import Base, memory_errors, train_adapter
from ragqa.training.recipe import Recipe
from ragqa.training.tokens import Encoded, Tokens


def test_too_little_memory_is_told_with_what_helps() -> None:
    with (
        pytest.raises(
            ModelError, match="too little memory for this run; lower batch_tokens or context_tokens, or turn"
        ),
        memory_errors(),
    ):
        raise torch.OutOfMemoryError("tried to allocate 20 GiB")


def test_a_model_that_does_not_compute_packs_as_examples_is_trained_on_padded_batches(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "packs_agree", lambda *_: False)
    said: list[str] = []
    monkeypatch.setattr(adapt, "say", said.append)
    run = Base(*models.load_generator(str(tiny_model), "cpu", "float32"), Recipe(steps=1, evaluations=1, rank=2))
    before = run.model.config._attn_implementation
    examples = Encoded([Tokens((5, 6, 7, 8, 0), 3), Tokens((5, 6, 9, 0), 2)])
    model, fitted, plan = train_adapter(run, examples, examples, tmp_path, None)
    assert "this model does not compute packed examples as it does single ones; batches are padded" in said
    assert plan["packed"] is False
    assert fitted.steps == 1
    assert model.config._attn_implementation == before
