"""What every layer may use: errors, clock, randomness, and nothing that knows Kubernetes' kinds."""
