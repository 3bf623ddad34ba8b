"""One short file per executable: wiring only."""
