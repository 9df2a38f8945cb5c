"""The results of runs, from their folders alone: tables, figures and a page."""

import logging

logging.getLogger("matplotlib").setLevel(logging.WARNING)  # importing fairseq lets everybody speak
