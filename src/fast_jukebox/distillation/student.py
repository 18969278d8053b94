"""Students: their configuration, the fields that must be their teacher's, and their initial weights."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterable

import torch

from fast_jukebox.distillation.layer_map import LayerMap, last_of_runs
from fast_jukebox.models.prior import FastJukeboxPrior, FastJukeboxPriorConfig
from fast_jukebox.utils.text import shown

logger = logging.getLogger(__name__)

# Fields in which a student must agree with its teacher: what the codes mean and what the model is conditioned on.
_SHARED_FIELDS = (
    *("level", "codebook_size", "n_ctx", "num_rows", "upper_ratio", "upper_codebook_size"),
    *("num_artists", "num_genres", "max_genres", "use_timing", "genre_period"),
    *("lyric_length", "lyric_vocab_size", "has_lyric_encoder", "sampling_rate", "hop_length"),
)


def student_config(teacher: FastJukeboxPriorConfig, num_hidden_layers: int) -> FastJukeboxPriorConfig:
    """The teacher's configuration at another depth.

    The attention patterns are those of [`student_layer_types`]. The student's alignment layer is the one that learns
    from the teacher's, if one does.

    Raises:
        ValueError: a depth that is no positive integer, or one that leaves a teacher's student without the layers that
            attend to its lyrics.
    """
    config = copy.deepcopy(teacher)
    config.num_hidden_layers = num_hidden_layers
    config.layer_types, config.teacher_layers = student_layer_types(teacher, num_hidden_layers), None
    _check_lyric_layers(config, teacher)
    config.validate()
    if teacher.alignment_layer is not None and num_hidden_layers <= teacher.num_hidden_layers:
        learners = LayerMap.from_configs(teacher, config).teacher_layers
        known = teacher.alignment_layer in learners
        config.alignment_layer = learners.index(teacher.alignment_layer) if known else None
        config.alignment_head = teacher.alignment_head if known else None
    return config


def student_layer_types(teacher: FastJukeboxPriorConfig, depth: int) -> list[str]:
    """Attention patterns of a student of `depth` layers.

    Without lyrics they are the teacher's first, as in the paper, where all its patterns are among them. Otherwise each
    pattern has the fraction of layers that it has in the teacher, and one at least (two for the lyrics, where the
    teacher's alignment layer is not the last of them), and the layers stand in the order of those that they learn from
    (see [`LayerMap`]): the deeper layer learns from the deeper one, and the student's last from the teacher's last. The
    teacher's first patterns where the depth is too small for all of them, its own where it is no depth of a student.
    """
    patterns = list(teacher.layer_types)
    words = list(dict.fromkeys(patterns))
    if not isinstance(depth, int) or not 0 < depth <= len(patterns):
        return patterns
    if depth < len(words) or (not _lyric_words(patterns) and set(patterns[:depth]) == set(words)):
        return patterns[:depth]
    layers = {word: [layer for layer, own in enumerate(patterns) if own == word] for word in words}
    least = dict.fromkeys(words, 1)
    aligned = teacher.alignment_layer
    lyrics = next((word for word in _lyric_words(patterns) if aligned in layers[word][:-1]), None)
    if lyrics is not None and depth > len(words):
        least[lyrics] = 2
    learned_from: dict[int, str] = {}
    for word, count in _layer_counts(layers, depth, least).items():
        learned_from |= dict.fromkeys(last_of_runs(layers[word], count, aligned), word)
    return [learned_from[layer] for layer in sorted(learned_from)]


def _layer_counts(layers: dict[str, list[int]], depth: int, least: dict[str, int]) -> dict[str, int]:
    """Layers of each pattern in a student of `depth` layers: the teacher's proportions as nearly as can be."""
    total = sum(len(own) for own in layers.values())
    counts = dict(least)
    while sum(counts.values()) < depth:
        word = max(layers, key=lambda word: depth * len(layers[word]) / total - counts[word])
        counts[word] += 1
    return counts


def _lyric_words(patterns: Iterable[str]) -> list[str]:
    return [word for word in dict.fromkeys(patterns) if word.startswith("lyric")]


def _check_lyric_layers(student: FastJukeboxPriorConfig, teacher: FastJukeboxPriorConfig) -> None:
    """Raise a `ValueError` for a student without layers that attend to the lyrics, as its teacher's do."""
    missing = [word for word in _lyric_words(teacher.layer_types) if word not in student.layer_types]
    depth = student.num_hidden_layers
    if missing and isinstance(depth, int) and depth > 0:
        words = list(dict.fromkeys(teacher.layer_types))
        raise ValueError(
            f"`num_hidden_layers` must leave the student layers of the pattern {missing[0]!r}, or it hears no "
            f"lyrics: at least {len(words)}, one for each of {', '.join(words)}, got {depth}"
        )


def check_student(student: FastJukeboxPriorConfig, teacher: FastJukeboxPriorConfig) -> LayerMap:
    """The layer map of two priors that speak of the same codes.

    Raises:
        ValueError: they differ in the codes, the context, the attention patterns or the conditions, or the student is
            deeper, or has no layer that attends to the lyrics; names the field and shows both values.
    """
    wrong = [
        f"`{name}` is {shown(ours)} in the student and {shown(theirs)} in the teacher"
        for name in _SHARED_FIELDS
        if (ours := _value(student, name)) != (theirs := _value(teacher, name))
    ]
    depth = min(student.num_hidden_layers, teacher.num_hidden_layers)
    wanted = [types[:depth] for types in (student_layer_types(teacher, depth), list(teacher.layer_types))]
    if list(student.layer_types)[:depth] not in wanted:
        wrong.append(
            f"`layer_types` is {list(student.layer_types)} in the student and "
            f"{list(teacher.layer_types)} in the teacher"
        )
    if wrong:
        raise ValueError(f"student and teacher must agree: {'; '.join(wrong)}")
    _check_lyric_layers(student, teacher)
    missing = [word for word in dict.fromkeys(teacher.layer_types) if word not in student.layer_types]
    if missing:
        logger.warning(
            "a student of %d layers has none of the attention pattern %s of its teacher of %d: nothing of those layers "
            "is learnt",
            student.num_hidden_layers,
            ", ".join(map(repr, missing)),
            teacher.num_hidden_layers,
        )
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
                "begin with random weights instead (`initialize_from_teacher=False`)"
            )
        pairs.append((weight, theirs[source]))
    for weight, source_weight in pairs:
        weight.copy_(source_weight)
    return student


def _value(config: FastJukeboxPriorConfig, name: str) -> object:
    if name == "upper_codebook_size" and config.has_upper_level:
        return config.upper_codebook_size or config.codebook_size
    return getattr(config, name)
