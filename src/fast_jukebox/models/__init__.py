"""What the networks are. Nothing here knows of files of songs or of training."""
