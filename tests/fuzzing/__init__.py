"""Everything that is read from somebody else, changed at random: it is read, or refused in a sentence, soon.

`seeds` writes small valid files of every kind, `mutate` changes them by kind of content, `kinds` says which reader of
the product opens them and what it must not accept, `watch` finds what a reader does besides, `drive` joins them.
"""
