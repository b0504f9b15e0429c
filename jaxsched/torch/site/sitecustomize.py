"""Hook torch's optimizers; on the path of a script that ``jaxsched record`` runs."""

import importlib.machinery
import importlib.util
import os
import sys
from typing import Any

_MODULE = "torch.optim.optimizer"


class _Finder:
    """A finder that adds a hook to torch's optimizers when they are imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return the spec of ``_MODULE`` with a loader that registers the hook; None for others."""
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            module.register_optimizer_step_pre_hook(_note)

        spec.loader.exec_module = exec_module
        return spec


def _note(optimizer: Any, *_: Any) -> None:
    """Record a step; torch is imported completely by now."""
    from jaxsched.torch import _script as script

    script.note(optimizer)


if os.environ.get("JAXSCHED_RECORD"):
    sys.meta_path.insert(0, _Finder())
    # Run the sitecustomize that this one hides.
    _here = os.path.dirname(os.path.abspath(__file__))
    _others = [path for path in sys.path if os.path.abspath(path or ".") != _here]
    _spec = importlib.machinery.PathFinder.find_spec("sitecustomize", _others)
    if _spec is not None and _spec.loader is not None:
        _spec.loader.exec_module(importlib.util.module_from_spec(_spec))
