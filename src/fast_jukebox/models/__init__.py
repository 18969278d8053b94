"""The networks. Nothing here depends on files of songs or on training."""
