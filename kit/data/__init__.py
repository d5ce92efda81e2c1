"""The competition, its data files, and the folds."""
