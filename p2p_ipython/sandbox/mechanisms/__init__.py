"""Mechanisms: the ways to start a runner. ``launch`` has their table; nothing here knows what runs inside.

``bubblewrap``   namespaces, and a root that shows what Python needs; ``bubblewrap_ways`` with and without a network
``podman``, ``apptainer``, ``docker``   containers, without an image
``landlock``     the kernel's own limits, which a runner sets itself
``landrun``      a program that does the same, around it
``firejail``     Linux: a profile for firejail, which a guard starts
``seatbelt``     macOS: a profile for sandbox-exec
``qemu``         a virtual machine
``process``      a plain child process with limits, but no walls

``internet``     the internet for runners, without the lender's own network
``environment``  which variables a runner gets that uses this machine's own Python
``python_files``, ``shown``   what a sandbox shows: Python with its packages, and of the system
``contents``, ``containers``, ``container_start``, ``container_guard``, ``leftovers``   what containers share
``machine_trial``, ``machine_disk``, ``machine_files``, ``machine_kernel``, ``elf``   how a machine's disk is made
``machine_guard``, ``machine_process``, ``machine_state``, ``machine_command``   a machine from its start to its end
``guarding``     how a guard, a process outside the wall, waits for its runner's end
``accounts``     what a runner's processes use, and how the last of them ended
``ids``          user ids that nobody has
``install``      how to install a program
"""
