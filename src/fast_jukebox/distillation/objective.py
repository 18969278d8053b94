"""Student, teacher and losses as one module whose forward is the loss, so that wrappers (DDP, FSDP) see all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from fast_jukebox.distillation.layer_map import LayerMap
from fast_jukebox.distillation.losses import (
    IGNORED_LABEL,
    INTERMEDIATE_TERMS,
    attention_mse,
    check_weights,
    data_cross_entropy,
    hidden_state_mse,
    prediction_cross_entropy,
)
from fast_jukebox.distillation.student import check_student
from fast_jukebox.models.prior import FastJukeboxPrior
from fast_jukebox.models.prior.block import BlockOutput, PriorBlock


@dataclass
class DistillationOutput(ModelOutput):
    """Output of a [`DistillationObjective`].

    Args:
        loss: weighted sum of the terms.
        terms: each term, unweighted and without gradient.
        logits: (N, L, K) of the student, where a term needed them.
        teacher_logits: (N, L, K) of the teacher, where a term needed them.
    """

    loss: Tensor | None = None
    terms: dict[str, Tensor] | None = None
    logits: Tensor | None = None
    teacher_logits: Tensor | None = None


class DistillationObjective(nn.Module):
    """Distance of a student from its teacher on a batch of windows, a weighted sum of named terms.

    - `attention_residual`, `hidden_states`, `attentions` (Eq. 4): mean squared differences after the attention's
      residual, after the block, and of the attention matrices; each a mean over the mapped pairs of layers.
    - `prediction` (Eq. 3): cross entropy against the teacher's distribution.
    - `data`: cross entropy against the data's codes.

    Both models are walked in step, block by block, the teacher without gradient. Of the teacher's activations only
    those of mapped layers are kept, and only until the student has reached its layer; what remains for the backward
    pass are the differences. Terms without weight cost nothing.

    The teacher is no submodule: it is not in the state dict, not among the parameters, and not moved by `to`.

    Args:
        student: what is trained.
        teacher: put into evaluation mode and frozen.
        layer_map: [`~fast_jukebox.distillation.student.check_student`]'s by default.

    Raises:
        ValueError: the two do not fit, or the map is of other models; shows both.
    """

    # For the Trainer: `num_items_in_batch` is understood, which makes accumulated gradients exact.
    accepts_loss_kwargs = True

    teacher: FastJukeboxPrior

    def __init__(self, student: FastJukeboxPrior, teacher: FastJukeboxPrior, layer_map: LayerMap | None = None) -> None:
        super().__init__()
        if student is teacher:
            raise ValueError("`student` must be another model than `teacher`, got the same object")
        checked = check_student(student.config, teacher.config)
        self.layer_map = checked if layer_map is None else layer_map
        self.layer_map.check_fits(teacher.config, student.config)
        self.student = student
        object.__setattr__(self, "teacher", teacher.eval().requires_grad_(False))
        widths = student.config.hidden_size, teacher.config.hidden_size
        self.projection: nn.Module = nn.Identity()
        if widths[0] != widths[1]:
            self.projection = nn.Linear(*widths, device=student.device, dtype=student.dtype)
        self._compares_attentions = student.config.num_attention_heads == teacher.config.num_attention_heads

    def check_terms(self, weights: Mapping[str, float]) -> dict[str, float]:
        """[`~fast_jukebox.distillation.losses.check_weights`] for these two models.

        Raises:
            ValueError: also where attention matrices are to be compared of different numbers of heads.
        """
        counting = check_weights(weights)
        if "attentions" in counting and not self._compares_attentions:
            heads = self.student.config.num_attention_heads, self.teacher.config.num_attention_heads
            raise ValueError(
                f"`num_attention_heads` must be the same where `attentions` are compared: it is {heads[0]} in the "
                f"student and {heads[1]} in the teacher; give `attentions` the weight 0"
            )
        return counting

    # The Trainer calls the first, and in older releases of transformers, which lack it, the second.
    def activation_checkpointing_enable(self, *args: object, **kwargs: object) -> None:
        """Of the student; the teacher keeps nothing anyway."""
        self.student.activation_checkpointing_enable(*args, **kwargs)

    def gradient_checkpointing_enable(self, *args: object, **kwargs: object) -> None:
        """Of the student, by the name that it had before."""
        self.student.gradient_checkpointing_enable(*args, **kwargs)

    def forward(
        self,
        codes: Tensor,
        upper_codes: Tensor | None = None,
        metadata: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        weights: Mapping[str, float],
        temperature: float = 1.0,
        num_items_in_batch: Tensor | int | None = None,
    ) -> DistillationOutput:
        """Compare on a batch.

        Args:
            codes: int64 (N, L), as for the prior, as are `upper_codes` and `metadata`.
            upper_codes: int64 (N, L / upper_ratio) or None.
            metadata: label vectors, with lyrics where the models receive them, or None.
            labels: int64 (N, L) of the `data` term, `codes` by default; -100 is not counted there.
            weights: of the terms by name; 0 for those left out.
            temperature: of the `prediction` term.
            num_items_in_batch: labels of all batches whose gradients are added up; the loss is then this batch's
                part of their mean.

        Raises:
            ValueError: as in the prior's forward, or an unknown term.
        """
        weights = self.check_terms(weights)
        labels = codes if labels is None else labels
        teacher = _TeacherWalk(self, weights, codes, upper_codes, metadata)
        hidden, conditioning = self.student.embed(codes, upper_codes, metadata)
        terms: dict[str, Tensor] = {}
        for layer, teacher_layer in self.layer_map:
            output = self.student.blocks[layer](hidden, "attentions" in weights, None, conditioning.lyric_states)
            hidden = output.hidden_states
            if teacher.is_compared:
                for name, term in self._compare(layer, output, teacher.layer(teacher_layer), weights).items():
                    terms[name] = terms[name] + term if name in terms else term
        terms = {name: term / len(self.layer_map) for name, term in terms.items()}

        logits = teacher_logits = None
        if "prediction" in weights or "data" in weights:
            logits = self.student.head(hidden, conditioning)
            if "prediction" in weights:
                teacher_logits = teacher.logits()
                terms["prediction"] = prediction_cross_entropy(logits, teacher_logits, temperature)
            if "data" in weights:
                terms["data"] = data_cross_entropy(logits, labels)

        loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        if num_items_in_batch is not None:
            loss = loss * ((labels != IGNORED_LABEL).sum() / num_items_in_batch)
        return DistillationOutput(
            loss=loss,
            terms={name: term.detach() for name, term in terms.items()},
            logits=logits,
            teacher_logits=teacher_logits,
        )

    def _compare(
        self, layer: int, ours: BlockOutput, theirs: BlockOutput, weights: Mapping[str, float]
    ) -> dict[str, Tensor]:
        """The intermediate terms of one pair of layers."""
        terms = {}
        if "attention_residual" in weights:
            terms["attention_residual"] = hidden_state_mse(
                self.projection(ours.attention_residual), theirs.attention_residual
            )
        if "hidden_states" in weights:
            terms["hidden_states"] = hidden_state_mse(self.projection(ours.hidden_states), theirs.hidden_states)
        if "attentions" in weights:
            terms["attentions"] = attention_mse(
                cast(Tensor, ours.attentions),
                cast(Tensor, theirs.attentions),
                cast(PriorBlock, self.student.blocks[layer]).attention.pattern,
                ours.hidden_states.shape[1],
            )
        return terms


class _TeacherWalk:
    """A teacher run over one batch as far as it is asked for, without gradient."""

    def __init__(
        self,
        objective: DistillationObjective,
        weights: Mapping[str, float],
        codes: Tensor,
        upper_codes: Tensor | None,
        metadata: Tensor | None,
    ) -> None:
        self.prior = objective.teacher
        self.is_compared = any(name in weights for name in INTERMEDIATE_TERMS)
        self.need_weights = "attentions" in weights
        self.mapped = set(objective.layer_map.teacher_layers) if self.is_compared else set()
        self.waiting: dict[int, BlockOutput] = {}
        self.done = 0
        if self.is_compared or "prediction" in weights:
            with torch.no_grad():
                self.hidden, self.conditioning = self.prior.embed(codes, upper_codes, metadata)

    def layer(self, layer: int) -> BlockOutput:
        """Output of a mapped layer; each can be taken once."""
        self._run_to(layer + 1)
        return self.waiting.pop(layer)

    def logits(self) -> Tensor:
        """(N, L, K)."""
        self._run_to(len(self.prior.blocks))
        with torch.no_grad():
            return self.prior.head(self.hidden, self.conditioning)

    def _run_to(self, end: int) -> None:
        with torch.no_grad():  # not as a decorator, which torch.compile does not follow here
            while self.done < end:
                is_mapped = self.done in self.mapped
                need_weights = self.need_weights and is_mapped
                output = self.prior.blocks[self.done](self.hidden, need_weights, None, self.conditioning.lyric_states)
                if is_mapped:
                    self.waiting[self.done] = output
                self.hidden = output.hidden_states
                self.done += 1
