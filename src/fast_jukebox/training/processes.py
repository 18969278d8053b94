"""Training on several processes: what accelerate must not remember."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import Trainer

_MARKS = ("_is_accelerate_prepared", "_original_forward", "forward")
"""What accelerate leaves in a model that it prepares."""


@contextmanager
def evaluated_only(trainer: Trainer) -> Iterator[None]:
    """Let accelerate forget a model that is evaluated before it is trained.

    It prepares no model twice, so that one that was prepared to be evaluated would then be trained by each process by
    itself, without the others' gradients.

    Args:
        trainer: that evaluates within; where its model is prepared already, or sharded, nothing is changed.
    """
    prepared = trainer.accelerator._models
    if prepared or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        yield
        return
    facts, wrapped = vars(trainer.model), trainer.model_wrapped
    before = {name: facts[name] for name in _MARKS if name in facts}
    try:
        yield
    finally:
        prepared.clear()
        for name in _MARKS:
            facts.pop(name, None)
        facts.update(before)
        trainer.model_wrapped = wrapped
