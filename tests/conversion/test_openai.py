from fast_jukebox.conversion import openai
from fast_jukebox.conversion.openai_prior import convert_prior
from fast_jukebox.conversion.openai_vqvae import convert_vqvae


def test_both_converters_are_found_in_one_place():
    assert openai.convert_prior is convert_prior
    assert openai.convert_vqvae is convert_vqvae
