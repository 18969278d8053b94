"""Generation of one song: its request, its plan of windows, and the sampling of its levels."""
