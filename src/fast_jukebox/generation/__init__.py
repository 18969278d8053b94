"""How codes are sampled: what is sampled when, how a code is drawn, and the loop that does it."""
