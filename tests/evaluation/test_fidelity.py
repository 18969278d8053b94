"""Students beside their teacher, against a plain loop and the laws of a divergence."""

import math

import pytest
import torch

from fast_jukebox import FastJukeboxPrior, FastJukeboxPriorConfig
from fast_jukebox.evaluation.likelihood import compare_with_teacher


def tiny_prior(seed: int, layers: int, **settings) -> FastJukeboxPrior:
    torch.manual_seed(seed)
    config = FastJukeboxPriorConfig(
        codebook_size=12, n_ctx=8, num_rows=2, hidden_size=8, num_hidden_layers=layers, num_attention_heads=1,
        **settings,
    )  # fmt: skip
    prior = FastJukeboxPrior(config)
    for weight in prior.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    return prior


@pytest.fixture
def windows():
    generator = torch.Generator().manual_seed(3)
    return [{"codes": torch.randint(0, 12, (8,), generator=generator)} for _ in range(5)]


def test_figures_are_those_of_a_plain_loop(windows):
    teacher, student = tiny_prior(0, 6).eval(), tiny_prior(1, 3).eval()
    found = compare_with_teacher({"student": student}, teacher, windows, batch_size=2)["student"]
    bits = kl = same = hits = 0.0
    with torch.no_grad():
        for window in windows:
            codes = window["codes"]
            p = teacher(codes[None]).logits[0].double().softmax(-1)
            q = student(codes[None]).logits[0].double().softmax(-1)
            for position, code in enumerate(codes.tolist()):
                bits -= math.log2(q[position, code])
                kl += sum(float(p[position, k] * torch.log2(p[position, k] / q[position, k])) for k in range(12))
                same += int(p[position].argmax() == q[position].argmax())
                hits += int(q[position].argmax() == code)
    assert found.codes == 40
    assert found.bits_per_code == pytest.approx(bits / 40, abs=1e-5)
    assert found.perplexity == pytest.approx(2 ** (bits / 40), rel=1e-5)
    assert found.kl_to_teacher == pytest.approx(kl / 40, abs=1e-5)
    assert (found.agreement, found.accuracy) == (same / 40, hits / 40)


def test_a_teacher_is_no_distance_from_itself(windows):
    teacher, twin = tiny_prior(0, 3).train(), tiny_prior(0, 3)
    found = compare_with_teacher({"teacher": teacher, "twin": twin}, teacher, windows)
    assert found["teacher"].kl_to_teacher == 0.0 and found["teacher"].agreement == 1.0
    assert found["twin"].kl_to_teacher == pytest.approx(0.0, abs=1e-6)
    assert found["twin"].bits_per_code == pytest.approx(found["teacher"].bits_per_code, abs=1e-5)
    assert teacher.training


def test_refuses_other_codebooks_and_no_windows(windows):
    teacher = tiny_prior(0, 3)
    with pytest.raises(ValueError, match="windows"):
        compare_with_teacher({"teacher": teacher}, teacher, [])
    torch.manual_seed(0)
    stranger = FastJukeboxPrior(
        FastJukeboxPriorConfig(
            codebook_size=16, n_ctx=8, num_rows=2, hidden_size=8, num_hidden_layers=3, num_attention_heads=1
        )
    )
    with pytest.raises(ValueError, match="codebook_size"):
        compare_with_teacher({"stranger": stranger}, teacher, windows)
