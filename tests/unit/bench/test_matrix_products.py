"""What the profile of a step counts as matrix products."""

import pytest

pytest.importorskip("torch")  # the module below imports it

from lowmem_rl_bench.step.matrix_products import ProductsProfile

ROWS, WIDE, OUT = 64, 256, 512


@pytest.mark.parametrize(("mode", "passes"), [("inference_mode", 1), ("no_grad", 1), ("enable_grad", 2)])
def test_products_are_counted_forward_and_backward(mode: str, passes: int) -> None:
    import torch

    layer, x = torch.nn.Linear(WIDE, OUT), torch.randn(ROWS, WIDE)
    with getattr(torch, mode)():
        profile = ProductsProfile()
        y = torch.sin(layer(x))
        if y.requires_grad:
            y.sum().backward()  # of the weight alone: x has no gradient
        found = profile.stop()
    assert found["operations"] == passes * 2 * ROWS * WIDE * OUT
    assert 0 < found["products_s"] < found["step_s"]
    assert found["attention_s"] == 0


def test_attention_is_counted_separately() -> None:
    import torch

    q = torch.randn(1, 2, 64, 32)
    with torch.inference_mode():
        profile = ProductsProfile()
        torch.nn.functional.scaled_dot_product_attention(q, q, q)
        found = profile.stop()
    assert found["attention_s"] > 0
    assert found["products_s"] == found["operations"] == 0
