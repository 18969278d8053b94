"""`push_to_hub` of models and configurations: with a card of the package's own, and never without a licence."""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedConfig

from fast_jukebox.hub import clear_hub_errors, model_card, push_folder, push_model, require_license
from fast_jukebox.hub.load_card import load_card
from fast_jukebox.sampling.weights import adapter_settings
from fast_jukebox.utils.files import replacing_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_KINDS = {
    "fast_jukebox": "model",
    "fast_jukebox_vqvae": "vqvae",
    "fast_jukebox_prior": "prior",
    "fast_jukebox_valence": "valence",
}
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
# Arguments of `save_pretrained` that are about the push it may end with.
_PUSH_ARGUMENTS = (
    "card", "license", "private", "token", "revision", "commit_message", "commit_description", "create_pr", "tags",
)  # fmt: skip


class HubPushMixin:
    """Replaces transformers' `push_to_hub`, whose card states no licence. Stands before its classes among the bases."""

    def push_to_hub(
        self,
        repo_id: str,
        *,
        card: ModelCard | None = None,
        license: str | None = None,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: int | str | None = None,
        tags: list[str] | None = None,
    ) -> str:
        """Save and push in one commit, with a card that states the licence.

        Args:
            repo_id: `"organisation/name"`; made where it does not exist.
            card: as [`~fast_jukebox.hub.model_card`] makes it; it says more than the one made of `license`.
            license: of the weights, by the Hub's identifier, for a short card. With neither, the card that the
                repository has is kept, if it states a licence.
            commit_message: of the commit; says what is uploaded by default.
            commit_description: of the commit.
            private: whether a new repository is private.
            token: of the Hub; the one logged in with by default.
            revision: branch to push to, made where it does not exist.
            create_pr: propose the commit as a pull request instead.
            max_shard_size: of a file of weights, such as `"1GB"`, which is the default of whole models.
            tags: to add to the card's.

        Returns:
            Address of the commit, or of the pull request.

        Raises:
            ValueError: no licence is stated, or the Hub refuses the card's metadata: before anything is sent.
            HubError: no connection, no right to write.
        """
        card = _card_to_push(self, repo_id, card, license, tags, token, revision)
        kind = "config" if isinstance(self, PreTrainedConfig) else "model"
        return push_model(
            self,
            repo_id,
            card,
            save_arguments={} if max_shard_size is None else {"max_shard_size": max_shard_size},
            commit_message=commit_message or f"Upload {kind}",
            commit_description=commit_description,
            private=private,
            token=token,
            revision=revision,
            create_pr=create_pr,
        )

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], *args: Any, push_to_hub: bool = False, **kwargs: Any
    ) -> object:
        """Save as transformers does; with `push_to_hub=True` push as [`push_to_hub`] does, whose arguments it takes.

        The files take the places of an older model's all at once, or not at all, whenever the process is killed. The
        repository is `repo_id`, by default the directory's name; the card is left in the directory.

        Raises:
            ValueError: the model has layers with adapters of peft, which no model like it could read.
        """
        if isinstance(self, nn.Module) and adapter_settings(self):
            raise ValueError(
                f"a {type(self).__name__} with adapters cannot be saved as one without: merge them "
                "(`merge_and_unload()`), or save them alone (`fast_jukebox.models.adapters.save_adapter`)"
            )

        def save(folder: str | os.PathLike[str], *args: Any, **kwargs: Any) -> object:
            try:
                with replacing_files(folder, _WEIGHTS) as temporary:
                    return write(temporary, *args, **kwargs)
            except SafetensorError as error:  # of a disk that is full or fails, and names no file
                raise OSError(f"`{folder}` could not be written, what stood there stands: {error}") from error

        write = super().save_pretrained  # type: ignore[misc]
        if not (push_to_hub and kwargs.get("is_main_process", True)):
            return save(save_directory, *args, **kwargs)
        repo_id = kwargs.pop("repo_id", None) or Path(save_directory).absolute().name
        push = {name: kwargs.pop(name) for name in _PUSH_ARGUMENTS if name in kwargs}
        given = (push.pop("card", None), push.pop("license", None), push.pop("tags", None))
        card = _card_to_push(self, repo_id, *given, push.get("token"), push.get("revision"))
        saved = save(save_directory, *args, **kwargs)
        card.save(Path(save_directory) / "README.md")
        push = {name: value for name, value in push.items() if value is not None}
        push_folder(save_directory, repo_id, **push)
        return saved


def _card_to_push(
    model: PreTrainedModel,
    repo_id: str,
    card: ModelCard | None,
    license: str | None,
    tags: list[str] | None,
    token: bool | str | None,
    revision: str | None,
) -> ModelCard:
    """The card given, or one made of a licence, or the repository's own; with more tags.

    Raises:
        ValueError: none of them, or it states no licence.
    """
    if card is not None and license is not None:
        raise ValueError(f"`license` must be stated by the `card` where one is given, got {license!r} as well")
    if card is None and license is not None:
        config = model if isinstance(model, PreTrainedConfig) else model.config
        kind = _KINDS.get(config.model_type, "model")
        card = model_card(
            name=repo_id,
            description=describe_config(config),
            training="Nothing was recorded of the training.",
            license=license,
            kind=kind,
        )
    if card is None:
        card = _card_of_repository(repo_id, token, revision)
    if card is None:
        raise ValueError(
            "`license` must name the weights' license before a push, such as 'apache-2.0' or 'cc-by-nc-4.0', or `card` "
            f"must state it (fast_jukebox.hub.model_card makes one); got neither, and `{repo_id}` has no card yet"
        )
    require_license(card)
    more = [*(getattr(model, "model_tags", None) or []), *([tags] if isinstance(tags, str) else tags or [])]
    if more:
        card = copy.deepcopy(card)
        stated = getattr(card.data, "tags", None) or []
        setattr(card.data, "tags", list(dict.fromkeys([*stated, *more])))  # noqa: B010  # no field of every kind of card
    return card


def _card_of_repository(repo_id: str, token: bool | str | None, revision: str | None) -> ModelCard | None:
    with clear_hub_errors(repo_id, revision, verb="push"):
        try:
            path = hf_hub_download(repo_id, "README.md", token=token, revision=revision)
        except LocalEntryNotFoundError:  # no answer says nothing of the card
            raise
        except RevisionNotFoundError:  # a branch that this push makes begins with the card of the default branch
            return _card_of_repository(repo_id, token, None) if revision is not None else None
        except (EntryNotFoundError, RepositoryNotFoundError):
            return None
    return load_card(path)


def describe_config(config: PreTrainedConfig) -> str:
    """What a model is, as its configuration says it, in a sentence for its card."""
    if config.model_type == "fast_jukebox_vqvae":
        hops = ", ".join(map(str, config.hop_lengths))
        return (
            f"The VQ-VAE of a raw audio model at {config.sampling_rate} Hz, mono: {config.num_levels} levels, with one "
            f"of {config.codebook_size} codes for every {hops} samples."
        )
    if config.model_type == "fast_jukebox_prior":
        above = f", conditioned on level {config.level + 1}" if config.has_upper_level else ""
        return (
            f"The prior of level {config.level} (0 is the bottom) of a raw audio model{above}: a sparse transformer of "
            f"{config.num_hidden_layers} layers and width {config.hidden_size} over {config.n_ctx} codes."
        )
    if config.model_type == "fast_jukebox_valence":
        source = f" Its labels: {config.labels_from}." if config.labels_from else ""
        return (
            "A classifier of emotional valence after Sukhavasi and Adapa (2019): activated or deactivated, pleasant or "
            f"unpleasant.{source}"
        )
    depths = " or ".join(str(depth) for depth in sorted({prior.num_hidden_layers for prior in config.prior_configs}))
    hops = ", ".join(map(str, config.hop_lengths))
    return (
        f"A model of raw audio at {config.sampling_rate} Hz, mono: a VQ-VAE of {config.num_levels} levels, with one of "
        f"{config.vqvae_config.codebook_size} codes for every {hops} samples, and for each level a sparse transformer "
        f"prior of {depths} layers."
    )
