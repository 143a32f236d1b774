"""Training: state, optimizer, devices, checkpoints, the loop, the log."""
