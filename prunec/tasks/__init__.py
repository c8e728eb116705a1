"""What is asked of a network: a class for an image, or for every pixel."""
