"""Pictures as arrays: edits and checks that a picture shows them, warps, differences."""
