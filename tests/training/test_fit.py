from pathlib import Path

import pytest
import torch

from ragqa.errors import StorageError
from ragqa.training.fit import _load_best, _Trainer


def test_a_best_checkpoint_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"adapter_model\.safetensors: the best checkpoint is gone; begin anew with"):
        _load_best(torch.nn.Linear(1, 1), tmp_path / "checkpoint-3")


def test_a_step_of_no_batches_has_no_tokens() -> None:
    trainer = _Trainer.__new__(_Trainer)
    assert trainer._get_num_items_in_batch([], torch.device("cpu")).item() == 0
