"""Tasks of a network: a class per image, or a class per pixel."""
