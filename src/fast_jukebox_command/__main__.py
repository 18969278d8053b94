"""`python -m fast_jukebox_command` is the command `fast-jukebox`."""

from fast_jukebox_command import main

main()
