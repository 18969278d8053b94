"""Distillation of a deep prior into a shallow one."""
