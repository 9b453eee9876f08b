"""Put the report together and write it."""
