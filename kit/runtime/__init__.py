"""What runs in a kernel on Kaggle; it always leaves a submission."""
