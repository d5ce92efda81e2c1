"""What tells the truth: metrics, the leaderboard estimate, and the report."""
