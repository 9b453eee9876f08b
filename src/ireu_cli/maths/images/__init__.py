"""Pictures as arrays: edits and whether they show, warps, differences."""
