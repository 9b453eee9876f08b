"""The method `gated`, in closed form: each person gets a detector of two hidden units, which triggers a change."""
