"""The command line: commands, their arguments, their screens and their error messages."""
