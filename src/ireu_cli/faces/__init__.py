"""Photos: folders of them, their pixels, faces in them, and one person's face put into another's photo."""
