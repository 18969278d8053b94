"""Students: their configuration, what they must share with their teacher, and what they begin with."""

from __future__ import annotations

import copy
import re
from typing import Any

import torch

from fast_jukebox.distillation.layer_map import LayerMap
from fast_jukebox.models.prior import FastJukeboxPrior, FastJukeboxPriorConfig

# Fields in which a student must agree with its teacher: what the codes mean and what the model is told beside them.
_SHARED_FIELDS = (
    "level",
    "codebook_size",
    "n_ctx",
    "num_rows",
    "upper_ratio",
    "upper_codebook_size",
    "num_artists",
    "num_genres",
    "max_genres",
    "use_timing",
    "lyric_length",
    "lyric_vocab_size",
    "has_lyric_encoder",
    "sampling_rate",
    "hop_length",
)


def student_config(teacher: FastJukeboxPriorConfig, num_hidden_layers: int) -> FastJukeboxPriorConfig:
    """The teacher's configuration at another depth.

    A student has layers of all the teacher's patterns: where the teacher's first layers lack one, as a deep teacher's
    may lack the lyrics, it is spread over the student in the teacher's proportion. The student's alignment layer is the
    one that learns from the teacher's, if one does.

    Raises:
        ValueError: a depth that is no positive integer.
    """
    config = copy.deepcopy(teacher)
    config.num_hidden_layers = num_hidden_layers
    config.layer_types = student_layer_types(teacher, num_hidden_layers)
    config.validate()
    if teacher.alignment_layer is not None and num_hidden_layers <= teacher.num_hidden_layers:
        learners = LayerMap.from_configs(teacher, config).teacher_layers
        known = teacher.alignment_layer in learners
        config.alignment_layer = learners.index(teacher.alignment_layer) if known else None
        config.alignment_head = teacher.alignment_head if known else None
    return config


def student_layer_types(teacher: FastJukeboxPriorConfig, depth: Any) -> list[str]:
    """Patterns of a student of `depth` layers: the teacher's own where all of them are among its first layers, or where
    the student has too few layers to have them all.
    """
    patterns = list(teacher.layer_types)
    words = list(dict.fromkeys(patterns))
    if not isinstance(depth, int) or not len(words) <= depth <= len(patterns) or set(patterns[:depth]) == set(words):
        return patterns
    missing = [word for word in words if word not in patterns[:depth]]
    rest = [word for word in patterns if word not in missing]
    chosen: list[str | None] = [None] * depth
    for word in missing:
        count = max(1, round(depth * patterns.count(word) / len(patterns)))
        for index in range(count):
            place = (index + 1) * depth // count - 1
            while chosen[place] is not None:
                place -= 1
            chosen[place] = word
    others = iter(rest)
    return [next(others) if word is None else word for word in chosen]


def check_student(student: FastJukeboxPriorConfig, teacher: FastJukeboxPriorConfig) -> LayerMap:
    """The layer map of two priors that speak of the same codes.

    Raises:
        ValueError: they differ in the codes, the context, the attention patterns or the conditions, or the student is
            deeper; names the field and shows both values.
    """
    wrong = [
        f"`{name}` is {ours!r} in the student and {theirs!r} in the teacher"
        for name in _SHARED_FIELDS
        if (ours := _value(student, name)) != (theirs := _value(teacher, name))
    ]
    depth = min(student.num_hidden_layers, teacher.num_hidden_layers)
    wanted = student_layer_types(teacher, student.num_hidden_layers)[:depth]
    if list(student.layer_types)[:depth] != wanted:
        wrong.append(
            f"`layer_types` is {list(student.layer_types)} in the student and "
            f"{list(teacher.layer_types)} in the teacher"
        )
    if wrong:
        raise ValueError(f"student and teacher must agree: {'; '.join(wrong)}")
    return LayerMap.from_configs(teacher, student)


@torch.no_grad()
def initialize_student(
    student: FastJukeboxPrior, teacher: FastJukeboxPrior, layer_map: LayerMap | None = None
) -> FastJukeboxPrior:
    """Give a student its teacher's embeddings, conditioners and output, and the mapped one of its layers for each.

    Args:
        student: of the teacher's widths; keeps its own dtype and device.
        teacher: where the weights are copied from.
        layer_map: [`check_student`]'s by default.

    Returns:
        The student.

    Raises:
        ValueError: the teacher lacks a weight or has it in another shape (names it and shows both shapes), or the map
            is of other models.
    """
    layer_map = check_student(student.config, teacher.config) if layer_map is None else layer_map
    layer_map.check_fits(teacher.config, student.config)
    theirs = teacher.state_dict()
    pairs = []
    for name, weight in student.state_dict().items():
        source = re.sub(r"^blocks\.(\d+)", lambda found: f"blocks.{layer_map[int(found[1])]}", name)
        if source not in theirs or theirs[source].shape != weight.shape:
            shape = tuple(theirs[source].shape) if source in theirs else "nothing of that name"
            raise ValueError(
                f"a student can begin with its teacher's weights only where they have the same shapes, but `{name}` is "
                f"{tuple(weight.shape)} in the student and `{source}` is {shape} in the teacher; "
                "begin with weights of its own instead (`initialize_from_teacher=False`)"
            )
        pairs.append((weight, theirs[source]))
    for weight, source_weight in pairs:
        weight.copy_(source_weight)
    return student


def _value(config: FastJukeboxPriorConfig, name: str) -> Any:
    if name == "upper_codebook_size" and config.has_upper_level:
        return config.upper_codebook_size or config.codebook_size
    return getattr(config, name)
