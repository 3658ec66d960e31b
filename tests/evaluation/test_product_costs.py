"""Products of two activations in what a network costs: attention's, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ptq4vm
from networks import quantize, tiny_folded, transformer_partition
from ptq4vm.evaluation.cost import count_macs, measure_cost
from ptq4vm.evaluation.products import count_products
from ptq4vm.models.base import MattingNetwork
from ptq4vm.models.vmformer.network import VMFormerMini
from ptq4vm.ops.junction import Operand
from ptq4vm.quant.fold import fold_batch_norm
from ptq4vm.quant.partition import resolve
from ptq4vm.quant.spec import QuantSpec

SIZE = (64, 96)
TOKENS, WIDTH, QUERIES = 4 * 6, 128, 4  # a sixteenth of the rows and columns
LAYER = WIDTH * TOKENS * TOKENS  # of all heads together: scores, and as many again for what is found
MEMORY = WIDTH * TOKENS * 2 * TOKENS  # it asks this frame and the last one
ASKING = WIDTH * QUERIES * TOKENS
MATTE = 16 * QUERIES * SIZE[0] * SIZE[1]


@pytest.fixture(scope="module")
def folded() -> VMFormerMini:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = VMFormerMini(1).eval()
    return fold_batch_norm(network).requires_grad_(False)  # type: ignore[return-value]


def test_products_of_the_transformer_by_hand(folded: VMFormerMini) -> None:
    expected = {("decoder.decode0.queries", "decoder.decode0.features"): MATTE}
    for path, products in (("layers.0", LAYER), ("memory", MEMORY), ("queries", ASKING)):
        own = f"{path}.attention"
        expected[f"{own}.query", f"{own}.key"] = expected[f"{own}.weight", f"{own}.value"] = products
    assert count_products(folded, SIZE) == expected
    assert sum(expected.values()) == 860160
    smaller = count_products(folded, (128, 192), 0.5)
    assert smaller == expected, "the network runs at half the size"


@pytest.mark.parametrize(("weight", "activation"), [(8, 8), (4, 8), (4, 4), (32, 32)])
def test_bit_operations_have_the_bits_of_both_factors(folded: VMFormerMini, weight: int, activation: int) -> None:
    partition = resolve(folded, transformer_partition())
    bits = "fp32" if weight == 32 else f"w{weight}a{activation}"
    _, spec = ptq4vm.load_method("rtn", bits)
    frames = torch.rand(1, 1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    network = folded if spec.is_float else quantize(folded, partition, spec, frames)
    cost = measure_cost(network, folded, partition, spec, SIZE)
    layers = count_macs(folded, SIZE)
    edges = {"backbone.features.0.0"}
    expected = sum(
        count * (64 if path in edges and weight < 32 else weight * activation) for path, count in layers.items()
    )
    expected += 2 * (LAYER + MEMORY + ASKING) * activation**2
    expected += MATTE * (1024 if weight == 32 else 64)  # both factors of the matte keep 8 bits
    assert cost.bops == expected
    assert cost.gmacs == pytest.approx((sum(layers.values()) + 860160) / 1e9)


def test_single_factors_count_with_their_own_bits(folded: VMFormerMini) -> None:
    partition = resolve(folded, transformer_partition())
    _, spec = ptq4vm.load_method("rtn", "w4a4")
    frames = torch.rand(1, 1, 3, *SIZE, generator=torch.Generator().manual_seed(0))

    def bops(chosen: QuantSpec) -> int:
        return measure_cost(quantize(folded, partition, chosen, frames), folded, partition, chosen, SIZE).bops

    finer = replace(spec, activation_bits={"memory.attention.weight": 8, "memory.attention.key": 32})
    assert bops(finer) - bops(spec) == MEMORY * ((8 * 4 - 4 * 4) + (4 * 32 - 4 * 4))


class _Written(nn.Module):
    """Attention in another way of writing it: fused, or without places for quantizers."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.query, self.value = Operand(), Operand()

    def forward(self, x: Tensor) -> Tensor:  # (N, L, C)
        if self.how == "fused":
            return F.scaled_dot_product_attention(self.query(x), x, self.value(x[..., :2]))
        if self.how == "bmm":
            return torch.bmm(torch.softmax(torch.bmm(self.query(x), x.mT), -1), self.value(x[..., :2]))
        scores = x.mT.__rmatmul__(self.query(x))
        return torch.matmul(input=torch.softmax(scores, -1), other=self.value(x[..., :2]).contiguous())


class _Asking(MattingNetwork):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.asks = _Written(how)
        self.layer = nn.Linear(1, 1)

    def forward(self, src: Tensor, downsample_ratio: float = 1.0) -> list[Tensor]:
        x = src.flatten(0, 1).flatten(2).transpose(1, 2)
        return [src, self.layer(self.asks(x)[..., :1]).reshape(*src.shape[:2], 1, *src.shape[-2:])]


@pytest.mark.parametrize("how", ["fused", "bmm", "keywords"])
def test_factors_that_passed_no_operand_are_floats(how: str) -> None:
    pixels = 4 * 6
    found = count_products(_Asking(how).eval(), (4, 6))
    assert found == {("asks.query", ""): 3 * pixels * pixels, ("", "asks.value"): 2 * pixels * pixels}


def test_networks_without_products_have_none() -> None:
    assert count_products(tiny_folded(), SIZE) == {}
