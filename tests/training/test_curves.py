"""Held-out bits over a training: an early end, a warning, pictures."""

import logging
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainerControl, TrainerState

from fast_jukebox.training.arguments import FastJukeboxTrainingArguments
from fast_jukebox.training.curves import LossCurves, draw_curves, loss_curves, overfitting, plot_curves

BITS = st.floats(0.01, 20, allow_nan=False)
CURVES = st.lists(st.tuples(st.integers(0, 10_000), BITS), max_size=30).map(sorted)


def test_rising_held_out_bits_are_overfitting_where_the_training_falls():
    train = [(10, 4.0), (20, 3.0), (30, 2.0), (40, 1.0)]
    held_out = [(10, 4.1), (20, 3.9), (30, 4.2), (40, 4.5)]
    warning = overfitting(train, held_out)
    assert "from 3.900 bits per code at step 20 to 4.500 at step 40" in warning
    assert "from 3.000 to 1.000" in warning and "--early_stopping_patience" in warning
    assert overfitting(train, held_out[:3]) is None  # one evaluation may be chance
    assert overfitting(train, [(10, 4.1), (20, 3.9), (30, 3.92), (40, 3.93)]) is None  # so may be less than 1 %
    assert overfitting(train, [(10, 4.1), (20, 3.9), (30, 3.8), (40, 3.7)]) is None
    assert overfitting([(10, 4.0), (40, 5.0)], held_out) is None  # a learning rate that is too high is something else
    assert overfitting([], held_out) is None
    assert "step 0 to" in overfitting(train, [(0, 3.0), (10, 3.5), (20, 3.6)])


def test_curves_are_read_from_the_log():
    log = [
        {"loss": 1.0, "bits_per_code": 1.5, "step": 2},
        {"eval_loss": 1.0, "eval_bits_per_code": 1.6, "step": 2},
        {"train_loss": 0.5, "step": 4},
        {"eval_bits_per_code": 1.7, "step": 4},
        {"eval_bits_per_code": 1.65, "step": 4},  # the last evaluation, of the same step
    ]
    assert loss_curves(log) == ([(2, 1.5)], [(2, 1.6), (4, 1.65)])


def test_a_drawing_shows_where_the_curves_are():
    drawing = draw_curves([(0, 4.0), (100, 1.0)], [(0, 4.0), (50, 2.5)], width=11, height=7)
    lines = [line.split("|", 1)[1] for line in drawing.splitlines() if "|" in line]
    assert lines == ["8", "", "", "     o", "", "", "          ."]
    assert re.search(r"4\.000 \|8", drawing) and "step 100" in drawing
    assert draw_curves([], []) == ""


@given(CURVES, CURVES)
def test_any_curves_can_be_drawn(train, held_out):
    drawing = draw_curves(train, held_out)
    assert all(len(line) <= 75 for line in drawing.splitlines())
    marks = "".join(line.split("|", 1)[1] for line in drawing.splitlines() if " |" in line)
    assert bool(marks) == bool(train or held_out)
    assert set(marks) <= set(".o8 ")
    overfitting(train, held_out)


def test_the_picture_has_both_curves(tmp_path):
    from matplotlib.image import imread

    one = imread(plot_curves(tmp_path / "one.png", [(1, 2.0), (2, 1.0)], []))
    both = imread(plot_curves(tmp_path / "both.png", [(1, 2.0), (2, 1.0)], [(1, 2.0), (2, 1.5)]))
    assert one.shape == both.shape == (400, 700, 4)
    assert (one != both).any() and (one < 0.9).any()


def test_early_stopping_sets_what_it_needs(tmp_path):
    def arguments(**more):
        return FastJukeboxTrainingArguments(output_dir=str(tmp_path), use_cpu=True, early_stopping_patience=2, **more)

    args = arguments()
    assert args.load_best_model_at_end and args.metric_for_best_model == "loss" and not args.greater_is_better
    assert (args.eval_strategy, args.eval_steps, args.save_strategy, args.save_steps) == ("steps", 0.1, "steps", 0.1)
    assert args.save_total_limit == 2
    args = arguments(eval_strategy="epoch", save_total_limit=5, metric_for_best_model="bits_per_code")
    assert (args.eval_strategy, args.save_strategy, args.save_total_limit) == ("epoch", "epoch", 5)
    assert not args.greater_is_better and arguments(metric_for_best_model="eval_accuracy").greater_is_better
    args = arguments(eval_strategy="steps", eval_steps=30)
    assert (args.eval_steps, args.save_steps) == (30, 30)
    args = arguments(max_minutes=1.0)
    assert args.eval_strategy == "steps" and args.eval_steps == args.save_steps > 10**8
    with pytest.raises(ValueError, match="`early_stopping_patience` must be at least 1, got 0"):
        FastJukeboxTrainingArguments(output_dir=str(tmp_path), use_cpu=True, early_stopping_patience=0)
    with pytest.raises(ValueError, match="`early_stopping_threshold` must be a number of at least 0, got -1"):
        arguments(early_stopping_threshold=-1.0)
    plain = FastJukeboxTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert not plain.load_best_model_at_end and plain.learning_rate == 5e-5 and not plain.learning_rate_given
    assert FastJukeboxTrainingArguments(output_dir=str(tmp_path), use_cpu=True, learning_rate=5e-5).learning_rate_given


def test_a_training_is_warned_once_and_logged_where_it_is_evaluated(caplog, tmp_path):
    curves, control = LossCurves(), TrainerControl()
    assert not curves.on_step_end(None, None, control).should_log
    control.should_evaluate = True
    assert curves.on_step_end(None, None, control).should_log
    state = TrainerState()
    curves.before = (0, 4.0)
    for step, train, held_out in ((10, 3.0, 4.2), (20, 2.0, 4.4), (30, 1.0, 4.6)):
        state.log_history += [
            {"bits_per_code": train, "step": step},
            {"eval_bits_per_code": held_out, "step": step},
        ]
        curves.on_evaluate(None, state, None)
        assert caplog.text.count("overfitting: held-out songs went from 4.000 bits") == (step > 10)
    curves.draw(state.log_history, tmp_path)
    assert (tmp_path / "curves.png").is_file()


def test_without_matplotlib_the_curves_are_drawn_in_characters(caplog, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    log = [
        {"bits_per_code": 2.0, "step": 1},
        {"eval_bits_per_code": 2.0, "step": 1},
        {"eval_bits_per_code": 1.0, "step": 2},
    ]
    with caplog.at_level(logging.INFO):
        LossCurves().draw(log, tmp_path)
    assert "o held out" in caplog.text and "pip install 'fast-jukebox[plots]'" in caplog.text
    assert not list(tmp_path.iterdir())
