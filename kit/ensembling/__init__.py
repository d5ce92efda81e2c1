"""What votes: the blend of the folds, and the file to hand in."""
