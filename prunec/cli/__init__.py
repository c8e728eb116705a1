"""The command line: its commands, what they ask for, what they show when they fail."""
