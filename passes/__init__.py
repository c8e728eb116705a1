"""The passes: one file each, found by name; nothing registers itself."""
