import pytest
import torch

from fast_jukebox.models.prior.block import gate, gate_rows


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("width", [4, 8, 33, 36, 45, 90, 180, 192, 2047, 9999])
def test_a_rows_gate_does_not_depend_on_the_number_of_rows_bit_for_bit(width, threads):
    inner = torch.randn(23, width, generator=torch.Generator().manual_seed(width)) * 4
    alone = torch.cat([gate(inner[row : row + 1], gate_rows(inner[row : row + 1], width)) for row in range(4)])
    for rows in (4, 8, 12, 20, 23):
        together = gate(inner[:rows], gate_rows(inner[:rows], width))
        assert together.shape == (rows, width)
        torch.testing.assert_close(together, inner[:rows] * torch.sigmoid(1.702 * inner[:rows]))
        assert torch.equal(together[:4], alone)
