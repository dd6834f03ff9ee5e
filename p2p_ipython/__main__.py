"""``python -m p2p_ipython``: the same as ``p2p``."""

import sys

from p2p_ipython.cli import main

if __name__ == "__main__":
    sys.exit(main())
