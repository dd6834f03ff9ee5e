"""A board that is no better than pico's ``pipe`` service. Only tests start it; the product imports nothing of it.

::

    quirks   how that service treats its topics: what is worse there than on our own board (pure)
    server   a board over SSH that behaves so: ``serve(options, PicoServer)``
"""
