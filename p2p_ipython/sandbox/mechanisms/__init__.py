"""Mechanisms: the ways to start a runner. ``launch`` has their table; nothing here knows what runs inside.

``bubblewrap``   namespaces by bwrap, which most distributions have
``podman``, ``apptainer``, ``docker``   containers, without an image
``landlock``     the kernel's own limits, by a library that pip brings
``process``      a plain child process with limits, but no walls

``environment``  which variables a runner gets that uses this machine's own Python
``python_files``, ``shown``   what a sandbox shows: Python with its packages, and of the system
``contents``, ``containers``, ``container_guard``, ``leftovers``   what the three kinds of container share, start to end
``guarding``     how a guard, a process outside the wall, waits for its runner's end
``accounts``     what a runner's processes use, and how the last of them ended
``ids``          user ids that nobody has
``install``      how to install a program
"""
