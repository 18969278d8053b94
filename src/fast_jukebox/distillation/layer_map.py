"""Layer maps: the teacher layer that each student layer learns from (Fast Jukebox, "Layer correspondence", Fig. 4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fast_jukebox.models.prior import FastJukeboxPriorConfig


@dataclass(frozen=True)
class LayerMap:
    """Pairs of (student layer, teacher layer), 0-based, each of one attention pattern.

    Layers are grouped by their pattern. Of a pattern with m layers in the teacher and n in the student, layer j of the
    student's group learns from layer `(j + 1) * m // n - 1` of the teacher's: the last of each of n runs that
    divide the teacher's group as evenly as possible, so within a group the order is kept and the last meets the last.
    For 72 -> 24 those are the last of 3 layers of the pattern, for 72 -> 18 the last of 4.

    >>> layer_map = LayerMap.from_patterns(["row", "column"] * 4, ["row", "column"] * 2)
    >>> list(layer_map)
    [(0, 2), (1, 3), (2, 6), (3, 7)]
    >>> print(layer_map)
    | pattern | student layer | teacher's layers | learns from |
    |---------|---------------|------------------|-------------|
    | row     |             0 |             0, 2 |           2 |
    | row     |             2 |             4, 6 |           6 |
    | column  |             1 |             1, 3 |           3 |
    | column  |             3 |             5, 7 |           7 |

    Args:
        teacher_patterns: attention pattern of each of the teacher's layers.
        student_patterns: attention pattern of each of the student's layers.
        teacher_layers: for each of the student's layers the teacher's that it learns from.

    Raises:
        ValueError: a student layer without its teacher layer, a teacher layer that does not exist, that serves twice,
            or that is of another pattern.
    """

    teacher_patterns: tuple[str, ...]
    student_patterns: tuple[str, ...]
    teacher_layers: tuple[int, ...]

    def __post_init__(self) -> None:
        layers, depth = self.teacher_layers, len(self.teacher_patterns)
        if len(layers) != len(self.student_patterns):
            raise ValueError(
                f"`teacher_layers` must have one entry for each of the student's {len(self.student_patterns)} layers, "
                f"got {len(layers)}"
            )
        for student, teacher in self:
            if not 0 <= teacher < depth:
                raise ValueError(f"`teacher_layers` must be in [0, {depth}), got {teacher} for student layer {student}")
            if self.teacher_patterns[teacher] != self.student_patterns[student]:
                raise ValueError(
                    f"`teacher_layers` must keep the attention pattern: student layer {student} is "
                    f"{self.student_patterns[student]!r}, teacher layer {teacher} is {self.teacher_patterns[teacher]!r}"
                )
        if len(set(layers)) != len(layers):
            twice = sorted({layer for layer in layers if layers.count(layer) > 1})
            raise ValueError(f"`teacher_layers` must serve one student layer each, got more for {twice}")

    @classmethod
    def from_configs(cls, teacher: FastJukeboxPriorConfig, student: FastJukeboxPriorConfig) -> LayerMap:
        """The map from the patterns and depths of two priors.

        Raises:
            ValueError: the student has more layers of a pattern than the teacher; shows both.
        """
        return cls.from_patterns(teacher.layer_types, student.layer_types, teacher.alignment_layer)

    @classmethod
    def from_patterns(
        cls, teacher: Sequence[str], student: Sequence[str], alignment_layer: int | None = None
    ) -> LayerMap:
        """The map from the attention pattern of each layer of both.

        Args:
            teacher: pattern of each of its layers.
            student: pattern of each of its layers.
            alignment_layer: a teacher layer that one of two or more student layers of its pattern is to learn from: it
                takes the place of the one whose run it is in, or of the last but one, as the last still meets the last.

        Raises:
            ValueError: there are no layers, or the student has more of a pattern than the teacher; shows both.
        """
        if not student:
            raise ValueError("`student` must have at least 1 layer, got 0")
        teacher_layers = [0] * len(student)
        for pattern in dict.fromkeys(student):
            theirs, ours = _layers_of(pattern, teacher), _layers_of(pattern, student)
            if len(ours) > len(theirs):
                raise ValueError(
                    f"the student must have no more layers of a pattern than the teacher: of {pattern!r} the student "
                    f"has {len(ours)} (of {len(student)} layers), the teacher {len(theirs)} (of {len(teacher)})"
                )
            for layer, learned_from in zip(ours, last_of_runs(theirs, len(ours), alignment_layer), strict=True):
                teacher_layers[layer] = learned_from
        return cls(tuple(teacher), tuple(student), tuple(teacher_layers))

    def check_fits(self, teacher: FastJukeboxPriorConfig, student: FastJukeboxPriorConfig) -> None:
        """Refuse a map of other models.

        Raises:
            ValueError: the layers of one of the two have other patterns than the map's; shows both.
        """
        for name, ours, config in (
            ("teacher_patterns", self.teacher_patterns, teacher),
            ("student_patterns", self.student_patterns, student),
        ):
            if list(ours) != list(config.layer_types):
                raise ValueError(
                    f"`layer_map` must be of these two models, but its `{name}` are {list(ours)}, and the model's "
                    f"layers are {list(config.layer_types)}"
                )

    def __len__(self) -> int:
        return len(self.teacher_layers)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(enumerate(self.teacher_layers))

    def __getitem__(self, student_layer: int) -> int:
        """The teacher layer that a student layer learns from."""
        return self.teacher_layers[student_layer]

    def __str__(self) -> str:
        """The table of Fig. 4, which is Markdown too: the student's layers by pattern, each with the teacher's layers
        of that pattern that it stands for and the one that it learns from, all counted from 0.
        """
        rows = [("pattern", "student layer", "teacher's layers", "learns from")]
        for pattern in dict.fromkeys(self.student_patterns):
            first = 0
            theirs = _layers_of(pattern, self.teacher_patterns)
            for layer in _layers_of(pattern, self.student_patterns):
                end = theirs.index(self[layer]) + 1
                run = ", ".join(map(str, theirs[first:end]))
                rows.append((pattern, str(layer), run, str(self[layer])))
                first = end
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        header, *body = rows
        lines = [[text.ljust(width) for text, width in zip(header, widths, strict=True)]]
        lines += [
            [row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]
            for row in body
        ]
        text = [f"| {' | '.join(line)} |" for line in lines]
        return "\n".join([text[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *text[1:]])


def last_of_runs(layers: Sequence[int], count: int, kept: int | None = None) -> list[int]:
    """The last of each of `count` runs that divide the layers as evenly as possible, and `kept` where it is one of them
    and `count` leaves room for it beside the last: in its run's place, or in that of the last run but one.
    """
    ends = [(index + 1) * len(layers) // count for index in range(count)]
    chosen = [layers[end - 1] for end in ends]
    if kept is not None and kept in layers and kept not in chosen and count > 1:
        run = next(index for index, end in enumerate(ends) if layers.index(kept) < end)
        chosen[min(run, count - 2)] = kept
    return chosen


def _layers_of(pattern: str, patterns: Sequence[str]) -> list[int]:
    return [layer for layer, word in enumerate(patterns) if word == pattern]
