"""The arguments of every training, and what every training script does with its command line."""

from __future__ import annotations

import difflib
import logging
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import yaml
from transformers import HfArgumentParser, PreTrainedModel, TrainingArguments
from transformers.hf_argparser import HfArg

from fast_jukebox.models.adapters import LABELS, TARGETS, add_lora
from fast_jukebox.utils.text import shown

_NO_END = 10**9
_HIGHER_IS_BETTER = ("accuracy", "agreement", "snr", "auc")  # transformers takes all but losses for such metrics


@dataclass(repr=False)  # a new one would show the token
class FastJukeboxTrainingArguments(TrainingArguments):
    """[`~transformers.TrainingArguments`] with what a published model must state, time limits and an early end.

    Raises:
        ValueError: `push_to_hub` without `hub_license`, or with another `hub_strategy`; a limit that is not positive.
    """

    learning_rate: float | None = HfArg(
        default=None, help="The optimizer's peak learning rate; 5e-5 by default, or what a script takes for it."
    )
    hub_license: str | None = HfArg(
        default=None, help="License of the weights by the Hub's identifier, such as apache-2.0; needed to push."
    )
    hub_datasets: list[str] = HfArg(default_factory=list, help="The Hub's names of the data trained on, for the card.")
    hub_base_model: str | None = HfArg(
        default=None,
        help="The Hub's name of the model that is trained further, for the card; its terms hold for the weights too.",
    )
    hub_strategy: str = HfArg(
        default="end",
        help="end pushes the finished model, every_save the model of each checkpoint too. Complete checkpoints, which "
        "hold pickles, are not pushed.",
    )
    remove_unused_columns: bool | None = HfArg(
        default=False, help="Drop columns no model takes; datasets here have none."
    )
    max_minutes: float | None = HfArg(
        default=None,
        help="Train so many minutes in place of so many steps: the learning rate falls to zero by the clock, and a "
        "resumed training has what its checkpoint left.",
    )
    stop_at: float | None = HfArg(default=None, help="Unix time at which training ends, with the same schedule.")
    clock_evaluations: int = HfArg(default=4, help="With a time limit: evaluate and save so often on the way.")
    early_stopping_patience: int | None = HfArg(
        default=None,
        help="Stop after so many evaluations in a row without a lower held-out loss (or a better "
        "--metric_for_best_model), and keep the best of them. Each evaluation is saved; the best and the last "
        "checkpoint are kept unless --save_total_limit says otherwise.",
    )
    early_stopping_threshold: float = HfArg(
        default=0.0, help="How much lower a held-out loss must be to count, in its unit."
    )

    def __post_init__(self) -> None:
        steps: int = self.max_steps  # type: ignore[has-type]  # a field of the base class, whose module mypy cannot see
        if (self.max_minutes is not None or self.stop_at is not None) and steps <= 0:
            self.max_steps = _NO_END
        self.learning_rate_given = self.learning_rate is not None
        if self.learning_rate is None:
            self.learning_rate = 5e-5  # transformers' default
        if self.early_stopping_patience is not None:
            self._stop_early()
        metric: str | None = self.metric_for_best_model  # type: ignore[has-type]
        if metric is not None and self.greater_is_better is None:  # type: ignore[has-type]
            self.greater_is_better = any(word in metric for word in _HIGHER_IS_BETTER)
        if not torch.accelerator.is_available():  # torch warns for every loader that there is nothing to pin for
            self.dataloader_pin_memory = False
        super().__post_init__()
        if self.push_to_hub and not self.hub_license:
            raise ValueError("`hub_license` must name the weights' license where `push_to_hub` is set, got None")
        strategy = getattr(self.hub_strategy, "value", self.hub_strategy)
        if self.push_to_hub and strategy not in ("end", "every_save"):
            raise ValueError(f"`hub_strategy` must be 'end' or 'every_save', got {shown(strategy)}")

    def _stop_early(self) -> None:
        """Set what transformers' callback needs: evaluations, each of them saved, of which the best is loaded."""
        patience, threshold = self.early_stopping_patience, self.early_stopping_threshold
        if patience is not None and patience < 1:
            raise ValueError(f"`early_stopping_patience` must be at least 1, got {patience}")
        if not (math.isfinite(threshold) and threshold >= 0):
            raise ValueError(f"`early_stopping_threshold` must be a number of at least 0, got {shown(threshold)}")
        if self.max_minutes is not None or self.stop_at is not None:  # the clock says when it evaluates and saves
            self.eval_strategy, self.eval_steps = "steps", _NO_END
        elif self._evaluate_by_default("steps"):
            self.eval_steps = self.eval_steps or 0.1  # type: ignore[assignment]  # a fraction of all steps
        self._keep_best()

    def _evaluate_by_default(self, strategy: str) -> bool:
        """Set `eval_strategy` where it is "no"; returns whether it was."""
        unset: bool = getattr(self.eval_strategy, "value", self.eval_strategy) == "no"
        self.eval_strategy = strategy if unset else self.eval_strategy
        return unset

    def _keep_best(self) -> None:
        """Save each evaluation, and load the best at the end."""
        self.load_best_model_at_end = True
        self.save_strategy = self.eval_strategy
        self.save_steps = self.eval_steps or self.logging_steps
        limit: int | None = self.save_total_limit  # type: ignore[has-type]  # of the base class, too
        self.save_total_limit = 2 if limit is None else limit


def parse_arguments(groups: Sequence[type], arguments: Sequence[str] | None = None) -> tuple[object, ...]:
    """One object for each dataclass of `groups`, from options, or from a JSON or YAML file that is the only argument.

    What the package logs at the level INFO, such as the songs and hours of each split, is shown from here on.

    Raises:
        ValueError: an option that there is not, with the nearest; or a file that is damaged, or lacks a field.
    """
    _show_messages()
    parser = HfArgumentParser(groups)  # type: ignore[arg-type]
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if len(arguments) == 1 and arguments[0].endswith((".json", ".yaml", ".yml")):
        read = parser.parse_json_file if arguments[0].endswith(".json") else parser.parse_yaml_file
        try:
            return read(arguments[0])
        except (TypeError, ValueError, yaml.YAMLError) as error:  # transformers names no file
            raise ValueError(f"{arguments[0]}: {' '.join(str(error).split())}") from error
    *found, unknown = parser.parse_args_into_dataclasses(arguments, return_remaining_strings=True)
    if unknown:
        known = [option for action in parser._actions for option in action.option_strings]
        nearest = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1, cutoff=0.6)
        hint = f"; did you mean `{nearest[0]}`?" if nearest else ""
        raise ValueError(f"there is no option {shown(unknown[0])}{hint}")
    return tuple(found)


def _show_messages() -> None:
    """Print the package's messages in the first process; in others warnings alone, as Python does by itself."""
    logger = logging.getLogger("fast_jukebox")
    if logger.handlers or int(os.environ.get("RANK", "0")):
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def name_base_model(args: FastJukeboxTrainingArguments, source: str | None) -> None:
    """Let the card name the model that is trained further, where it came from the Hub and no other is named.

    Args:
        args: their `hub_base_model` is set.
        source: folder or Hub name of that model, `None` for a training from nothing.
    """
    if args.hub_base_model is None and source is not None and not os.path.isdir(source):
        args.hub_base_model = source


@dataclass
class AdapterArguments:
    """LoRA adapters to train in place of all weights."""

    lora_rank: int = HfArg(
        default=0, help="Rank of LoRA adapters to train on the named model, such as 8; 0 trains it all."
    )
    lora_alpha: float | None = HfArg(default=None, help="Their product counts alpha / rank; twice the rank by default.")
    lora_dropout: float = HfArg(default=0.0, help="Dropout of their inputs.")
    lora_dora: bool = HfArg(default=False, help="Train a magnitude of each output too (DoRA).")
    lora_targets: list[str] = HfArg(
        default_factory=lambda: list(TARGETS), help="Linear layers that get them; all-linear for all."
    )

    def adapted(self, model: PreTrainedModel, new_names: bool = False) -> object:
        """The model to train: `model` itself, or where a rank is given with adapters.

        Args:
            model: as it was loaded but for new names, since whoever loads the adapters loads that; is changed.
            new_names: train the embeddings of artists and genres too, which are then kept with the adapters.
        """
        if not self.lora_rank:
            return model
        settings: dict[str, object] = {"use_dora": True} if self.lora_dora else {}
        if new_names:
            settings["modules_to_save"] = list(LABELS)
        return add_lora(model, self.lora_rank, self.lora_alpha, self.lora_dropout, self.lora_targets, **settings)
