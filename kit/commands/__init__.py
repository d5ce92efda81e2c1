"""What users call: the command line, and the same commands as functions for a notebook."""
