"""What verification says of drawn pictures."""
