"""Generators at work: pictures before and after an edit, and the panel that looks at them."""
