"""The method `block`: the published losses on one block, towards the average of people."""
