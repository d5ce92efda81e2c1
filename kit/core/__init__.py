"""Where everything stands: errors, the config, files and locks, progress, the machine and its software."""
