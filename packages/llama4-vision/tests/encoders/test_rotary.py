"""Places turn by column first, then row; the class token stands still."""

import cmath

import torch
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.model.rotary import rotate
from llama4_vision.encoders.rotary import rotations, turned


@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    quarter=st.integers(1, 4),
    theta=st.sampled_from((10.0, 1e4)),
)
def test_angles(rows, columns, quarter, theta):
    """Every angle against the formula, one by one, in Python."""
    got = rotations((rows, columns), 4 * quarter, theta, torch.device("cpu"))
    assert got.shape == (rows * columns + 1, 2 * quarter)
    for place in range(rows * columns):
        y, x = divmod(place, columns)
        for pair in range(2 * quarter):
            along, m = (x, pair) if pair < quarter else (y, pair - quarter)
            angle = (along + 1) * theta ** (-2 * m / (2 * quarter))
            # Angles of at most 4 in float64.
            assert abs(complex(got[place, pair]) - cmath.exp(1j * angle)) < 1e-12
    assert torch.equal(got[-1], torch.ones_like(got[-1]))


@given(
    batch=st.integers(1, 3),
    places=st.integers(1, 5),
    pairs=st.integers(1, 4),
    dtype=st.sampled_from((torch.float32, torch.bfloat16, torch.float64)),
)
def test_turns_as_the_text_model_does(batch, places, pairs, dtype):
    x = torch.randn(places, batch, 2 * pairs).to(dtype)
    turns = torch.polar(torch.ones(places, pairs), torch.randn(places, pairs)).to(torch.complex128)
    want = rotate(x, turns.to(torch.complex64))
    got = turned(x.transpose(0, 1), turns).transpose(0, 1)
    assert got.dtype == dtype
    # float64 keeps more of the turns than the text model's complex64 does: 6e-8 of numbers near 3.
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)
    assert turned(x.transpose(0, 1), turns).is_contiguous()
