"""Trainer subclasses for the VQ-VAE and the priors."""
