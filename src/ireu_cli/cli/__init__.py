"""The only code that prints or exits."""
