"""The optional packages, and the error that says how to install one."""

OPTIONAL = {
    "cyclopts": ("cyclopts", "cli"),
    "rich": ("rich", "cli"),
    "yaml": ("PyYAML", "cli"),
    "torch": ("PyTorch", "torch"),
    "flax": ("Flax", "train"),
    "matplotlib": ("matplotlib", "train"),
    "orbax": ("Orbax", "train"),
    "sklearn": ("scikit-learn", "train"),
    "tensorboardX": ("tensorboardX", "train"),
}
"""``{module: (display name, extra that installs it)}``."""


def missing(what: str, package: str) -> ModuleNotFoundError:
    """Return the error that ``what`` needs an optional package; ``package`` is its module's name.

    >>> print(missing("jaxsched.flax", "flax"))
    jaxsched.flax needs Flax: pip install 'jaxsched[train]', or in a checkout pip install -e '.[train]'
    """
    name, extra = OPTIONAL[package]
    return ModuleNotFoundError(
        f"{what} needs {name}: pip install 'jaxsched[{extra}]', "
        f"or in a checkout pip install -e '.[{extra}]'",
        name=package,
    )
