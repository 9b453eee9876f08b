"""Image encoders: loading, reading taps, selecting weights. Every foreign convention ends here."""
