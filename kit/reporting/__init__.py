"""Metrics, the leaderboard estimate, comparisons, and the report."""
