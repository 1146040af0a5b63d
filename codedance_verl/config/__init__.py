"""The Hydra tree: composition, checks of its values, hardware."""
