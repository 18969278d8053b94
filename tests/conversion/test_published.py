import pytest

from fast_jukebox.conversion.openai_prior import prior_config
from fast_jukebox.conversion.openai_vqvae import vqvae_config
from fast_jukebox.conversion.parts import prior_part, vqvae_part
from fast_jukebox.conversion.published import MODELS, check_hyperparameters, published_model


def count(part, *left_out):
    total = 0
    for name, shape in part.shapes.items():
        size = 1
        for length in shape:
            size *= length
        total += 0 if any(word in name for word in left_out) else size
    return total


def transformer(width, depth, attention=0.25):
    """Parameters of blocks: two norms, queries, keys, values and projection, and an MLP of the width."""
    state = int(attention * width)
    linears = [(width, 3 * state), (state, width), (width, width), (width, width)]
    return depth * (4 * width + sum(rows * columns + columns for rows, columns in linears))


def upsampler(width, context, artists, genres):
    """Parameters of a published upsampler: codes, positions, labels, blocks of 72 layers, and its conditioner."""
    inner = 1024
    block = inner * inner * 3 + inner + inner * inner + inner
    convolutions = width * inner * 3 + inner + 2 * 16 * block
    convolutions += inner * inner * 4 + inner + inner * width * 4 + width
    return (
        (2048 + context + artists + genres) * width + transformer(width, 72) + 2048 * width + convolutions + 2 * width
    )


def test_the_vqvae_has_the_published_number_of_parameters():
    part = vqvae_part(vqvae_config(published_model("5b")[0]))
    assert count(part, "codebook") == 1_485_763
    assert {shape for name, shape in part.shapes.items() if "vectors" in name} == {(2048, 64)}


@pytest.mark.parametrize("level", [0, 1])
def test_every_model_has_the_same_upsamplers(level):
    vqvae, priors = published_model("1b_lyrics")
    assert all(published_model(model)[1][level] == priors[level] for model in MODELS)
    config = prior_config(priors[level], vqvae)
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (1920, 72, 1)
    assert (config.n_ctx, config.num_rows, config.row_length) == (8192, 128, 64)
    assert (config.num_genres, config.num_artists, config.max_genres, config.use_timing) == (120, 4111, 5, False)
    assert config.conditioner_residual_scale == (level == 1)
    assert config.tie_word_embeddings
    if level == 0:
        assert count(prior_part(config)) == upsampler(1920, 8192, 4111, 120)


@pytest.mark.parametrize("model", MODELS)
def test_top_priors_have_the_published_sizes(model):
    vqvae, priors = published_model(model)
    config = prior_config(priors[2], vqvae)
    part = prior_part(config)
    width = config.hidden_size
    labels = (config.num_artists + config.num_genres + 3 * config.timing_bins) * width
    if model == "1b_lyrics":
        assert (width, config.num_attention_heads, config.sequence_length, config.row_length) == (2048, 2, 6528, 102)
        assert (config.lyric_prefix_keys, config.lyric_vocab_size) == (448, 79)
        assert part.shapes["code_embedding.weight"] == (2127, 2048)
        assert count(part) == labels + (2127 + 6528) * width + transformer(width, 72)
    else:
        depth, lyrics = (79, 512) if model == "5b_lyrics" else (72, 0)
        assert (width, config.num_attention_heads, config.sequence_length, config.row_length) == (4800, 8, 8192, 64)
        assert (config.num_hidden_layers, config.lyric_length) == (depth, lyrics)
        assert not config.tie_word_embeddings
        assert not config.add_conditioning_after
        encoder = (80 + 512 + 1) * 1280 + transformer(1280, 18) + (1280 + 1) * width + 2 * width + 80 * width
        own = labels + (2 * 2048 + 8192) * width + transformer(width, depth)
        assert count(part) == own + (encoder if lyrics else 0)
    shortest = {"1b_lyrics": 17.84, "5b": 60.0, "5b_lyrics": 23.8}[model]
    assert (config.min_duration, config.max_duration) == (shortest, 600.0)


@pytest.mark.parametrize(("model", "word"), [("1b_lyrics", "lyric_prefix"), ("5b_lyrics", "lyric_cross")])
def test_the_alignment_layer_attends_to_the_lyrics(model, word):
    vqvae, priors = published_model(model)
    config = prior_config(priors[2], vqvae)
    assert config.layer_types[config.alignment_layer] == word
    assert config.alignment_head < config.num_attention_heads


def test_each_call_gives_hyperparameters_of_its_own():
    published_model("5b")[1][0]["n_ctx"] = 1
    assert published_model("5b")[1][0]["n_ctx"] == 8192


def test_an_unknown_model_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"5b_lyric'.*`5b_lyrics`"):
        published_model("5b_lyric")


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        ([1], "mapping.*list"),
        ({"n_ctx": True}, "n_ctx.*whole number.*True"),
        ({"n_ctx": 3.5}, "n_ctx.*whole number.*3.5"),
        ({"m_attn": float("nan")}, "m_attn.*finite number.*nan"),
        ({"m_attn": "a"}, "m_attn.*finite number.*'a'"),
        ({"labels": 1}, "labels.*true or false.*1"),
        ({"downs_t": 3}, "downs_t.*list.*3"),
        ({"downs_t": [3, "2"]}, "downs_t.*list"),
        ({"downs_t": []}, "downs_t.*list"),
        ({"y_bins": [1, 2, 3]}, "y_bins.*two numbers"),
        ({"prior_depth": None}, "prior_depth.*None"),
        ({"prior_depth": 10**6}, "prior_depth.*at most"),
        ({"l_bins": 10**12}, "l_bins.*at most"),
    ],
)
def test_values_of_the_wrong_kind_are_named(hparams, message):
    with pytest.raises(ValueError, match=message):
        check_hyperparameters("hparams", hparams)


def test_what_is_not_known_is_left_alone():
    check_hyperparameters("hparams", {"beta2": "anything", "cond_dilation_cycle": None, "m_mlp": 1})
