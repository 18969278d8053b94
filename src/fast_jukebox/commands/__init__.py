"""What the commands of `fast-jukebox` do; their words and options stand in `cli.py`."""
