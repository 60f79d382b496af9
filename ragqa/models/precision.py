"""Fewer bits where they cost nothing: matrix products in 16 bits, all that is added up between them in 32.

A model that is 16 bits throughout loses in its sums: all-MiniLM-L6-v2's vectors then have a cosine of 0.9966 and more to
those of float32, and of 0.9999 this way, and is no faster.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import nn

# Rows of the matrices that are expected, for which oneDNN chooses the order of weights.
_ROWS: Final = 512
# Rows that oneDNN is seen to add up in one order, whatever their number; so it does from `_ROWS` on.
_FEW_ROWS: Final = 32
# What `Product._varies` found: it depends on the processor and these alone, the weights' shape and whether GELU follows.
_VARYING: Final[dict[tuple[torch.Size, bool], bool]] = {}


class Product:
    """A matrix product with constant weights, and what follows it.

    Where oneDNN multiplies in bfloat16 on this processor, the weights are brought into its order once, not at each call.

    Args:
        weight: (out, in).
        bias: (out,), or None.
        gelu: apply the Gaussian error linear unit to what comes out.
        steady: a row (of a matrix) comes out the same whatever other rows there are. Processors with AMX add a long row's
            products up in another order where there are some dozens of rows, and round to another bfloat16 then: those are
            multiplied a few at a time.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, gelu: bool = False, steady: bool = False
    ) -> None:
        self.dtype, self._gelu = weight.dtype, gelu
        self._bias = None if bias is None else bias.detach()
        self._weight = weight.detach()
        packed = self._in_order()
        self.packed = packed is not None
        self._multiply = self._plain if packed is None else self._pointwise
        if packed is not None:
            self._weight = packed
        self._by_few = steady and packed is not None and self._varies(weight.shape)

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out), in the weights' number format."""
        inputs = inputs.to(self.dtype)
        if self._by_few and _FEW_ROWS < len(inputs) < _ROWS:
            return self._few_by_few(inputs)
        return self._multiply(inputs, self._weight)

    def _few_by_few(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat([self._multiply(few, self._weight) for few in torch.split(inputs, _FEW_ROWS)])

    def _varies(self, shape: torch.Size) -> bool:
        """Whether rows come out otherwise among twice as many as are few; tried once for all layers of a kind."""
        kind = shape, self._gelu
        if kind not in _VARYING:
            tried = torch.randn(2 * _FEW_ROWS, shape[1], generator=torch.Generator().manual_seed(0)).to(self.dtype)
            with torch.no_grad():
                _VARYING[kind] = not torch.equal(self._multiply(tried, self._weight), self._few_by_few(tried))
        return _VARYING[kind]

    def _plain(self, inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        found = nn.functional.linear(inputs, weight, self._bias)
        return nn.functional.gelu(found) if self._gelu else found

    def _pointwise(self, inputs: torch.Tensor, packed: torch.Tensor) -> torch.Tensor:
        follows, how = ("gelu", "none") if self._gelu else ("none", "")
        found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs, packed, self._bias, follows, [], how)
        return found

    def _in_order(self) -> torch.Tensor | None:
        """The weights in oneDNN's order; None where this torch or this processor does not have it.

        These are private names of torch 2.x, which its own compiler uses: they are taken only if they compute what
        the public ones compute.
        """
        weight = self._weight
        if weight.dtype != torch.bfloat16 or weight.device.type != "cpu":
            return None
        tried = torch.linspace(-1, 1, 3 * weight.shape[1]).reshape(3, -1).to(weight.dtype)
        try:
            with torch.no_grad():
                packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
                found, wanted = self._pointwise(tried, packed), self._plain(tried, weight)
        except (AttributeError, RuntimeError, TypeError, NotImplementedError):
            return None
        return packed if torch.allclose(found, wanted, atol=0.02, rtol=0.02) else None


class HalfLinear(nn.Module):
    """A linear layer with 16-bit weights, float32 in and out.

    Args:
        layer: where weights and biases come from.
        dtype: bfloat16 or float16.
    """

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach().to(dtype), requires_grad=False)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().to(dtype), requires_grad=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out), both float32."""
        return nn.functional.linear(inputs.to(self.weight.dtype), self.weight, self.bias).float()


def halve_linear(module: Any, dtype: torch.dtype) -> None:
    """Make each linear layer in a float32 model a `HalfLinear`."""
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, HalfLinear(child, dtype))
        else:
            halve_linear(child, dtype)


class PackedLinear(nn.Module):
    """A linear layer whose weights are in oneDNN's order.

    Args:
        layer: where weights and biases come from.
        product: of them.
    """

    def __init__(self, layer: nn.Linear, product: Product) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self._product = product

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out), in the layer's number format."""
        return self._product(inputs)


def pack_linear(module: Any) -> int:
    """Bring the weights of each bfloat16 linear layer of a model on a CPU into oneDNN's order, for inference alone.

    torch does so at each call, which a pass over 4 tokens of SmolLM2-135M spends two thirds of its time with (87 ms to
    27 on 2 cores). The small layers of adapters stay as they are.

    Returns:
        How many layers it did this for; 0 where this torch or this processor has no such order.
    """
    done = 0
    for name, child in module.named_children():
        if type(child) is not nn.Linear:
            done += pack_linear(child)
        elif not isinstance(module, nn.ModuleDict):
            product = Product(child.weight, child.bias)
            if product.packed:
                setattr(module, name, PackedLinear(child, product))
                done += 1
    return done
