"""Work that is cut into shards, and who does them: this process, others beside it, or others on other machines."""
