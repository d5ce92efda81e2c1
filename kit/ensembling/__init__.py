"""Averages the folds' probs, applies the class prior, and writes and validates submissions."""
