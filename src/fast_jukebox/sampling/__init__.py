"""Sampling of one window of codes; knows no model."""
