"""Generation Improving Fine-Tuning: a fairseq plugin (``--user-dir gift_fairseq``).

fairseq imports ``tasks/`` of a user directory by itself; criterions are registered by the import below.
"""

from gift_fairseq import criterions  # noqa: F401
from gift_fairseq.checkpoints import allow_fairseq_checkpoints

__version__ = "0.1.0"

allow_fairseq_checkpoints()
