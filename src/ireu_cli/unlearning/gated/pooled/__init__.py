"""`gated` where no class token is: some attention heads average all tokens, so that every token knows the score."""
