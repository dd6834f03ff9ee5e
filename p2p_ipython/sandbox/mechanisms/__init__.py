"""Mechanisms: the ways to start a runner. ``launch`` has their table; nothing here knows what runs inside.

``process``      a plain child process with limits, but no walls
``internet``     the internet for runners, without the lender's own network
``firejail``     Linux: a profile for firejail, which a guard starts
``seatbelt``     macOS: a profile for sandbox-exec
``environment``  which variables a runner gets that uses this machine's own Python
"""
