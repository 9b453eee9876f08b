"""The method `gated`, in closed form: for each person a detector of two hidden units, and the change it triggers."""
