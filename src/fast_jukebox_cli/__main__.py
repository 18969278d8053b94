"""`python -m fast_jukebox_cli` is the command `fast-jukebox`."""

from fast_jukebox_cli import main

main()
