"""Machines beside this one: what runs on them, and how it is reached."""
