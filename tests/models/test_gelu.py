"""The compiled GELU gives what torch's gives, to the digits of fp32, in fp32 training on a CPU and nowhere else."""

import pytest
import torch
import torch.nn.functional as F

from raysl.models import gelu as module
from raysl.models.gelu import gelu


@pytest.mark.parametrize("form", ["tanh", "none"])
def test_value_and_gradient_are_those_of_torch_over_the_whole_range(form: str) -> None:
    pytest.importorskip("numba")
    far = torch.tensor([-1e4, -50.0, -0.0, 0.0, 50.0, 1e4])
    x = torch.cat([torch.linspace(-12, 12, 30_001), torch.linspace(-1e-3, 1e-3, 1001), far]).requires_grad_()
    exact_x = x.detach().double().requires_grad_()
    ours, theirs = gelu(x, form), F.gelu(exact_x, approximate=form)
    assert "CompiledGelu" in type(ours.grad_fn).__name__
    torch.testing.assert_close(ours, theirs.float(), rtol=2e-7, atol=3e-7)
    towards = torch.linspace(-2, 2, len(x))
    mine, exact = torch.autograd.grad(ours, x, towards)[0], torch.autograd.grad(theirs, exact_x, towards.double())[0]
    torch.testing.assert_close(mine, exact.float(), rtol=5e-7, atol=6e-7)


@pytest.mark.parametrize("form", ["tanh", "none"])
def test_a_wrong_number_stays_one(form: str) -> None:
    """A run that has left the numbers is stopped by its loss, so GELU must not hide it."""
    x = torch.tensor([float("nan"), 1.0], requires_grad=True)
    assert gelu(x, form).isnan().tolist() == [True, False]


def test_parts_of_a_tensor_and_its_shape_are_kept() -> None:
    whole = torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    part = whole[::2].transpose(1, 2)
    ours, theirs = gelu(part, "tanh"), F.gelu(part, approximate="tanh")
    torch.testing.assert_close(ours, theirs)
    gradients = (torch.autograd.grad(y.square().sum(), whole)[0] for y in (ours, theirs))
    torch.testing.assert_close(*gradients)


def test_other_types_inference_and_a_machine_without_numba_keep_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(6, requires_grad=True)
    for left in (gelu(x.bfloat16(), "tanh"), gelu(x.double(), "tanh")):
        assert type(left.grad_fn).__name__ == "GeluBackward0"
    assert gelu(x.detach(), "tanh").grad_fn is None
    with torch.no_grad():
        assert torch.equal(gelu(x, "tanh"), F.gelu(x, approximate="tanh"))
    with torch.autocast("cpu", torch.bfloat16):
        assert type(gelu(x, "none").grad_fn).__name__ == "GeluBackward0"
    monkeypatch.setattr(module, "has_numba", lambda: False)
    assert type(gelu(x, "tanh").grad_fn).__name__ == "GeluBackward0"
