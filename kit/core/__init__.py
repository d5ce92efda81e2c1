"""What every other room builds on: errors, config, files, locks, progress, machine, versions."""
