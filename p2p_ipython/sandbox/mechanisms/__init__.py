"""Mechanisms: the ways to start a runner. ``launch`` has their table; nothing here knows what runs inside.

``bubblewrap``   namespaces, and a root that shows what Python needs
``landlock``     the kernel's own limits, by the library sandlock; ``landlock_guard`` is outside its wall
``process``      a plain child process with limits, but no walls
``python_files``  which files this machine's own Python needs
``ids``          user ids for the runners of root's workers
``accounts``     what a runner's processes use, and how it ended
``install``      how to install a program here, in words
``internet``     the internet for runners, without the lender's own network
``firejail``     Linux: a profile for firejail, which a guard starts
``seatbelt``     macOS: a profile for sandbox-exec
``environment``  which variables a runner gets that uses this machine's own Python
"""
