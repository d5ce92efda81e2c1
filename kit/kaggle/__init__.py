"""Talking to Kaggle: credentials, the official client, downloads, kernel runs, submissions."""
