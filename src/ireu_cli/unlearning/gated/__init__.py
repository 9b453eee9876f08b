"""The method `gated`: closed form, two hidden units a direction find a person and move what is found."""
