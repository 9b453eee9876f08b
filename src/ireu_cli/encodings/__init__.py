"""How pictures become features: the loop that all of them pass, an encoder at a tap, and photos that cannot be used."""
