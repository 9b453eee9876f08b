"""Compare people and judge figures: values and pure functions that attacks and verification share."""
