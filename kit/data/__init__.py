"""What comes in: the competition, its files, and the folds."""
