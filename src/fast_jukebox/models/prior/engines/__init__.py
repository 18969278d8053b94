"""Engines that run the steps of a prior: recorded CUDA graphs, compiled C, and the choice among them."""
