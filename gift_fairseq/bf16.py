"""``--bf16`` on a GPU or the CPU: fairseq lets it imply ``--tpu``, with which fairseq-train ends at once there."""

import functools
from typing import Any, Callable

from fairseq import options, utils


def _without_tpu(parse: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(parse)
    def parsed(*arguments, **how):
        found = parse(*arguments, **how)
        namespace = found[0] if isinstance(found, tuple) else found
        if getattr(namespace, "bf16", False) and utils.xm is None:  # no torch_xla: no TPU
            namespace.tpu = False
        return found

    return parsed


options.parse_args_and_arch = _without_tpu(options.parse_args_and_arch)
