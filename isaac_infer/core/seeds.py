"""Seeds: which drawn scenes may be trained on, and which are for measuring."""

FIRST_HELD_OUT_SEED = 1_000_000  # scenes for training stay below it, scenes for measuring start at it
