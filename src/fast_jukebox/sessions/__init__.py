"""Songs kept on disk while they are made: takes, branches, cuts, and resuming after an interruption."""

from fast_jukebox.sessions.session import Session
from fast_jukebox.sessions.store import SessionError

__all__ = ["Session", "SessionError"]
