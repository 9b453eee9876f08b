"""Drawn people and a small encoder that knows them: photos in any number, with nobody's face in them."""
