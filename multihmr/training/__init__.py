"""Training: configuration, losses, targets, data loading, the training loop."""
