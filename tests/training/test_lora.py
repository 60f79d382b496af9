from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ragqa import models
from ragqa.errors import ModelError
from ragqa.training.lora import add_lora, computing
from ragqa.training.recipe import Recipe


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_that_do_not_convert_by_themselves_compute_in_the_models_format(dtype: torch.dtype) -> None:
    layer = torch.nn.Linear(4, 4)
    model: Any = SimpleNamespace(modules=layer.modules, dtype=dtype, device=torch.device("cpu"))
    with computing(model):
        assert layer(torch.ones(1, 4)).dtype == dtype


def test_a_layer_that_lora_cannot_adapt_is_one_clear_line(tiny_model: Path) -> None:
    model, _, _ = models.load_generator(str(tiny_model), device="cpu", dtype="float32")
    with pytest.raises(ModelError, match=r"^no LoRA adapter can be made for this model \(.*LlamaRMSNorm") as caught:
        add_lora(model, Recipe(target_modules=("input_layernorm",)))
    assert "\n" not in str(caught.value)
