"""Runs a kernel folder on this machine as Kaggle would."""
