"""Single products in the library's panels, against torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bothways.inference.packed_linear import FORMATS, PackedLinear
from bothways.native.loading import library
from bothways.precision import InferencePrecision

pytestmark = pytest.mark.skipif(library() is None, reason="nothing was built for this CPU")
ERRORS = {"float32": 1e-5, "bfloat16": 0.02, "int8": 0.06}  # of numbers of size one


@pytest.mark.parametrize("precision", FORMATS)
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_as_torchs_layer(precision: InferencePrecision, gelu: bool, bias: bool) -> None:
    torch.manual_seed(3)
    linear = nn.Linear(130, 101, bias=bias)
    packed = PackedLinear(linear, precision, gelu)
    with torch.inference_mode():
        for shape in ((0, 130), (1, 130), (2, 20, 130)):
            x = torch.randn(shape)
            expected = F.gelu(linear(x)) if gelu else linear(x)
            found = packed(x)
            assert found.shape == expected.shape
            torch.testing.assert_close(found, expected, atol=ERRORS[precision], rtol=0)


@pytest.mark.parametrize("precision", FORMATS)
def test_rows_that_are_not_contiguous_and_alone_as_in_company(precision: InferencePrecision) -> None:
    packed, x = PackedLinear(nn.Linear(64, 40), precision), torch.randn(64, 50)
    with torch.inference_mode():
        together = packed(x.T)
        assert torch.equal(together[7], packed(x.T[7:8].contiguous())[0])
