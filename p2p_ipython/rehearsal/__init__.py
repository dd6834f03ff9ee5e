"""A whole cluster in one process, on virtual time, with seeded faults.

Map: ``cluster.py`` joins the parts; ``board.py``, ``link.py`` and ``slot.py`` are fakes of a board, of links and of a
slot; ``hub.py`` stands for the network between the links. The fakes are part of the product: they pass the conformance
suites of the real ones.
"""

from p2p_ipython.rehearsal.cluster import NothingWillHappen, Participant, Rehearsal, run

__all__ = ["NothingWillHappen", "Participant", "Rehearsal", "run"]
