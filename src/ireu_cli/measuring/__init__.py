"""How people are compared and figures are judged: values and pure functions that attacks and verification share."""
