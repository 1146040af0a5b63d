"""Tasks with real input, demonstrations made by running code, and the published record schema."""
