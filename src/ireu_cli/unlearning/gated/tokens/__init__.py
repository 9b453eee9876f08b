"""Change every token of a person's photo: mark all tokens of a flagged one, and replace marked tokens."""
