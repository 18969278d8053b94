import pytest
import torch

from fast_jukebox.conversion.openai import OpenAICheckpoint, detect_model, is_openai_folder


@pytest.mark.parametrize("zipped", [True, False])
def test_a_folder_of_a_model_of_ones_own_is_read(tmp_path, hyperparameters, write_openai, zipped):
    models = write_openai(tmp_path, hyperparameters, zipped=zipped)
    checkpoint = OpenAICheckpoint(tmp_path, hyperparameters=hyperparameters)
    assert [part.name for part in checkpoint.parts] == ["priors.2", "priors.1", "priors.0", "vqvae"]
    for part in checkpoint.parts:
        name = "vqvae.pth.tar" if part.name == "vqvae" else f"prior_level_{part.name[-1]}.pth.tar"
        wanted = models[name].state_dict()
        for ours, tensor in part.tensors(checkpoint.tensors(part)):
            assert ours in part.constants or torch.equal(tensor, wanted[ours].half()), ours


def test_the_published_model_is_told_by_its_top_prior():
    embedding = {"prior.x_emb.weight": torch.zeros(3, 2048, device="meta")}
    assert detect_model(embedding) == "1b_lyrics"
    assert detect_model({"prior.x_emb.weight": torch.zeros(3, 4800, device="meta")}) == "5b"
    assert detect_model({**embedding, "prime_prior.x_emb.weight": torch.zeros(1)}) == "5b_lyrics"


@pytest.mark.parametrize("model", ["1b_lyrics", "5b", "5b_lyrics"])
def test_the_four_files_are_enough(tmp_path, tiny_published, write_openai, model):
    models = write_openai(tmp_path, tiny_published[model])
    checkpoint = OpenAICheckpoint(tmp_path)
    assert checkpoint.model == model
    assert OpenAICheckpoint(tmp_path, model).model == model
    wanted = models["prior_level_2.pth.tar"].state_dict()
    part = checkpoint.parts[0]
    for ours, tensor in part.tensors(checkpoint.tensors(part)):
        assert torch.equal(tensor, wanted[ours].half())


def test_shapes_that_are_not_the_published_ones_are_listed_with_a_hint(tmp_path, tiny_published, write_openai):
    own = {**tiny_published["5b_lyrics"]}
    own["priors"] = [*own["priors"][:2], {**own["priors"][2], "prior_width": 24, "prior_depth": 8}]
    write_openai(tmp_path, own)
    checkpoint = OpenAICheckpoint(tmp_path)
    message = r"prior_level_2\.pth\.tar.*left over.*of another shape.*'5b_lyrics'.*your own"
    with pytest.raises(ValueError, match=message):
        checkpoint.tensors(checkpoint.parts[0])


def test_missing_files_are_all_named(tmp_path, hyperparameters, write_openai):
    write_openai(tmp_path, hyperparameters)
    (tmp_path / "vqvae.pth.tar").unlink()
    (tmp_path / "prior_level_1.pth.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks vqvae\.pth\.tar, prior_level_1\.pth\.tar"):
        OpenAICheckpoint(tmp_path, hyperparameters=hyperparameters)


def test_the_folder_of_all_models_shares_what_they_share(tmp_path, tiny_published, write_openai):
    write_openai(tmp_path / "5b", tiny_published["5b"])
    assert OpenAICheckpoint(tmp_path, "5b").parts[0].config.lyric_length == 0
    (tmp_path / "1b_lyrics").mkdir()
    with pytest.raises(FileNotFoundError, match=r"lacks prior_level_2\.pth\.tar;"):
        OpenAICheckpoint(tmp_path, "1b_lyrics")
    write_openai(tmp_path / "1b_lyrics", tiny_published["1b_lyrics"])
    (tmp_path / "1b_lyrics" / "prior_level_0.pth.tar").unlink()
    (tmp_path / "1b_lyrics" / "vqvae.pth.tar").unlink()
    checkpoint = OpenAICheckpoint(tmp_path, "1b_lyrics")
    assert [len(checkpoint.tensors(part)) > 10 for part in checkpoint.parts] == [True] * 4


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        ("2b", None, "model.*'2b'"),
        ("5b", {}, "model.*None.*'5b'"),
        (None, {"vqvae": None}, "vqvae.*mapping.*NoneType"),
        (None, {"priors": []}, "priors.*list"),
        (None, {"priors": "abc"}, "priors.*list"),
        (None, {"priors": [3, 4, 5]}, r"priors\[0\].*mapping.*int"),
        (None, {"more": 1}, "must hold `vqvae` and `priors` and nothing else"),
    ],
)
def test_bad_arguments_are_named(tmp_path, hyperparameters, write_openai, model, change, message):
    write_openai(tmp_path, hyperparameters)
    given = None if change is None else {**hyperparameters, **change}
    with pytest.raises(ValueError, match=message):
        OpenAICheckpoint(tmp_path, model, given)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("vqvae", {"width": 0}, "`vqvae` of `hyperparameters` .* `width` must be an integer"),
        ("priors", {"cond_width": None}, r"`cond_width` of `priors\[1\]` must be a whole number"),
        ("priors", {"blocks": 7}, r"`priors\[1\]` of `hyperparameters` .* multiple of `num_rows` \(7\)"),
    ],
)
def test_hyperparameters_of_no_model_are_named_with_their_part(
    tmp_path, hyperparameters, write_openai, part, change, message
):
    write_openai(tmp_path, hyperparameters)
    (hyperparameters["priors"][1] if part == "priors" else hyperparameters[part]).update(change)
    with pytest.raises(ValueError, match=message):
        OpenAICheckpoint(tmp_path, hyperparameters=hyperparameters)


def test_tensors_that_contradict_one_another_are_named_with_their_file(tmp_path, hyperparameters, write_openai):
    write_openai(tmp_path, hyperparameters)
    path = tmp_path / "prior_level_0.pth.tar"
    content = torch.load(path, weights_only=True)
    embedding = content["model"]["module.prior.x_emb.weight"]
    for name, message in (
        ("prior.x_emb.weight", "holds `prior.x_emb.weight` twice.*; fetch it again"),
        ("module.prior.x_out.weight", "`prior.x_out.weight` that is not `prior.x_emb.weight`.*fetch the file again"),
    ):
        torch.save({"model": {**content["model"], name: embedding + 1}}, path)
        checkpoint = OpenAICheckpoint(tmp_path, hyperparameters=hyperparameters)
        with pytest.raises(ValueError, match=rf"prior_level_0\.pth\.tar`: .*{message}"):
            checkpoint.tensors(checkpoint.parts[2])


def test_a_level_in_the_wrong_place_is_named(tmp_path, hyperparameters, write_openai):
    write_openai(tmp_path, hyperparameters)
    hyperparameters["priors"][1]["level"] = 2
    with pytest.raises(ValueError, match=r"level.*priors\[1\].*must be 1.*got 2"):
        OpenAICheckpoint(tmp_path, hyperparameters=hyperparameters)


def test_folders_of_published_files_are_told_from_others(tmp_path, hyperparameters, write_openai):
    assert not is_openai_folder(tmp_path)
    write_openai(tmp_path / "a", hyperparameters)
    assert is_openai_folder(tmp_path / "a")
    (tmp_path / "5b_lyrics").mkdir()
    assert is_openai_folder(tmp_path)
