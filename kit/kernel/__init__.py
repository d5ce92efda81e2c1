"""A kernel folder: built here, pushed, followed, handed in."""
