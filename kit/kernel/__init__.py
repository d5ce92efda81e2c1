"""Build a kernel folder, push it to Kaggle, wait for it, and submit its output."""
