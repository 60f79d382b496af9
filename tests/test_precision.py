import pytest
import torch
from torch import nn

from ragqa.models.precision import PackedLinear, Product, pack_linear


def given(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)).bfloat16()


def test_rows_that_are_multiplied_a_few_at_a_time_come_out_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    product = Product(given(24, 16), None)
    sizes: list[int] = []

    def multiply(inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        sizes.append(len(inputs))
        return product._plain(inputs, given(24, 16))

    monkeypatch.setattr(product, "_multiply", multiply)
    monkeypatch.setattr(product, "_by_few", True)
    wanted = given(70, 16).float() @ given(24, 16).float().T
    torch.testing.assert_close(product(given(70, 16)).float(), wanted, atol=0.1, rtol=0.02)
    assert sizes == [32, 32, 6]
    for rows in (32, 512):
        sizes.clear()
        assert product(given(rows, 16)).shape == (rows, 24)
        assert sizes == [rows]


def test_where_this_torch_has_no_order_of_weights_a_product_is_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(self: Product, inputs: torch.Tensor, packed: torch.Tensor) -> torch.Tensor:
        raise AttributeError("_linear_pointwise")

    monkeypatch.setattr(Product, "_pointwise", gone)
    product = Product(given(24, 16), given(1, 24)[0])
    assert not product.packed
    assert torch.equal(product(given(5, 16)), nn.functional.linear(given(5, 16), given(24, 16), given(1, 24)[0]))
    assert pack_linear(nn.Sequential(nn.Linear(16, 24).bfloat16())) == 0


def test_the_small_layers_of_adapters_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Product, "_in_order", lambda self: self._weight)
    small, large = nn.Linear(16, 4).bfloat16(), nn.Linear(16, 24).bfloat16()
    model = nn.ModuleDict({"lora_A": nn.ModuleDict({"default": small}), "base": nn.Sequential(large)})
    assert pack_linear(model) == 1
    assert model["lora_A"]["default"] is small  # type: ignore[index]
    assert isinstance(model["base"][0], PackedLinear)  # type: ignore[index]
