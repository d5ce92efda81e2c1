"""What runs on Kaggle; it always leaves a submission."""
