"""The mask engine: which weights × how spread × when × what drops × what grows."""
