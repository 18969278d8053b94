"""Engines that run the steps of a prior: CUDA graphs, fused Triton kernels, compiled C, and the choice among them."""
