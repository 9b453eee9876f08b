"""Each command's work: load, call one pure step, store. Files go through `store`, words through `Talk`."""
