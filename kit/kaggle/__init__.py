"""The official client and what surrounds it: credentials, refusals, transfers, sessions, submissions."""
