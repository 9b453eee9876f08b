"""The rival that verification measures beside the edit: a face-match gate before a generator."""
