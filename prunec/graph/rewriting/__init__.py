"""The compact network, written from the kept channels, and the plan that records the cut."""
