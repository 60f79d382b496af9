import pytest

from ragqa import models
from ragqa.errors import ModelError
from ragqa.training.device import training_device


def test_one_gpu_of_several_is_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "choose_device", lambda device: device)
    assert training_device("cuda") == "cuda"
    with pytest.raises(ModelError, match=r"^--device cuda:1: training takes the first GPU .* by CUDA_VISIBLE_DEVICES"):
        training_device("cuda:1")
