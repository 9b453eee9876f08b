"""What every package may use: bounds, stamps, paces, pieces, and the run's environment. Nothing of the subject."""
