"""Files: atomic writes, temporary names, and paths that stay inside their folder."""
