"""Generators: diffusers pipelines that draw from features."""
