"""What verification measures on drawn pictures."""
