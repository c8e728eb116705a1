"""What a network is made of, and what a compile made of it."""
