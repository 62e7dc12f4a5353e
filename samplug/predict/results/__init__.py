"""From masks to Ultralytics' `Results`, and to files."""
