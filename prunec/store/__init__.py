"""What is on disk: the folders of runs, artifacts in them, versions and machine."""
