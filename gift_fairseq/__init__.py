"""Generation Improving Fine-Tuning: a fairseq plugin (``--user-dir gift_fairseq``).

fairseq imports this package, then ``tasks/`` by itself. The command line (``python -m gift_fairseq``) imports it too,
but without fairseq, whose import takes seconds: each command imports what it needs.
"""

import sys

__version__ = "0.1.0"

if "fairseq" in sys.modules:
    from gift_fairseq import criterions  # noqa: F401  registers the strategies
    from gift_fairseq.checkpoints import files  # noqa: F401  lets torch load fairseq's checkpoints
