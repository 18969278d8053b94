"""Distillation of a deep prior into a shallow one (Fast Jukebox): layer map, losses, stages, trainer."""

from fast_jukebox.distillation.layer_map import LayerMap
from fast_jukebox.distillation.objective import DistillationObjective, DistillationOutput
from fast_jukebox.distillation.stages import DistillationStage, StageSchedule
from fast_jukebox.distillation.student import check_student, initialize_student, student_config
from fast_jukebox.distillation.trainer import DistillationArguments, DistillationTrainer

__all__ = [
    "DistillationArguments",
    "DistillationObjective",
    "DistillationOutput",
    "DistillationStage",
    "DistillationTrainer",
    "LayerMap",
    "StageSchedule",
    "check_student",
    "initialize_student",
    "student_config",
]
