"""Drawn people and a small encoder that knows them: a whole job to try, with nobody's face in it."""
