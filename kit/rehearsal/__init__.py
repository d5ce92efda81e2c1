"""A kernel folder, run here as Kaggle would run it."""
