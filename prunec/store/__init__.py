"""Files of runs: run folders, their artifacts and records, versions and machine."""
