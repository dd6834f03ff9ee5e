"""As at home: cells run with and without ``%%p2p``, and what is seen of both is compared.

``lessons/`` are small notebooks in the manner of teaching ones; ``examples.py`` draws from docstrings. ``home.py`` runs
them in real kernels with a personal cluster of one worker; ``seen.py`` compares; ``known.py`` reads the list of
differences, which says of each what would be needed. ``make athome`` runs all of them, the tests here a part.
"""
