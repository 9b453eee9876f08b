"""Attacks: what somebody could try who wants a removed person back."""
