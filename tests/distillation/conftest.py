"""Teachers and students of the tiny model's levels."""

import pytest
import torch

from fast_jukebox import FastJukeboxPrior
from fast_jukebox.distillation.student import student_config


@pytest.fixture
def pair(tiny_config):
    """`pair(level, teacher, student)`: two priors with random weights, of the given depths."""

    def make(level=1, teacher=6, student=3, **changes):
        torch.manual_seed(7)
        config = tiny_config.prior_configs[level]
        ours = student_config(config, student)
        for name, value in changes.items():
            setattr(ours, name, value)
        # Weights that are far from zero, so that the two differ in all they compute.
        return [
            FastJukeboxPrior(entry)
            for entry in (student_config(config, teacher), ours)
            if not setattr(entry, "initializer_range", 0.2)
        ]

    return make


@pytest.fixture
def batch():
    """`batch(config, songs, length)`: codes with the level above, as a data set gives them."""

    def make(config, songs=2, length=None):
        length = length or config.n_ctx
        codes = torch.randint(config.codebook_size, (songs, length))
        items = {"codes": codes, "labels": codes.clone()}
        if config.has_upper_level:
            items["upper_codes"] = torch.randint(config.codebook_size, (songs, length // config.upper_ratio))
        return items

    return make
