"""Figures of models: what codes keep of the sound, how well codes are predicted, and whether samples are music."""
