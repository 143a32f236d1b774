"""Training: state, optimiser, devices, checkpoints, the loop, the log."""
