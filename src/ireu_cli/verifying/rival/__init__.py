"""The rival that verification measures beside the edit: a face-match gate in front of a generator."""
