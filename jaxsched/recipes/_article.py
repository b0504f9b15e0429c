"""YOLOv5's policy as the article simulates it on ResNet-18, and the trace of its script."""

from importlib import resources

from jaxsched import schedules
from jaxsched._recipe import Recipe
from jaxsched._schedule import Hyperparameter
from jaxsched._trace import Trace
from jaxsched._validate import describe, require, require_bool, require_nonnegative, require_run
from jaxsched.recipes import _policy as policy

NUMBERS = ("lr0", "lrf", "momentum", "weight_decay", "warmup_bias_lr", "warmup_momentum")


def yolov5_resnet18(
    *,
    epochs: int = 100,
    steps_per_epoch: int = 30,
    warmup_iterations: Hyperparameter = 1000,
    lr0: Hyperparameter = 0.01,
    lrf: Hyperparameter = 0.2,
    momentum: Hyperparameter = 0.937,
    weight_decay: Hyperparameter = 5e-4,
    warmup_bias_lr: Hyperparameter = 0.1,
    warmup_momentum: Hyperparameter = 0.8,
    start_epoch: int = 0,
    resumed: bool = False,
) -> Recipe:
    r"""The article's run: SGD with Nesterov momentum in three groups, warm-up, lagging cosine.

    With i the iteration, n ``steps_per_epoch``, e = i // n, w ``warmup_iterations`` and
    f the cosine factor ``schedules.cosine(epochs, lrf)``:

    .. math::
        \gamma_i &= \operatorname{interp}(i, [0, w], [\gamma_{\mathrm{start}}, \mathrm{lr0} f(e)])
                    && i \le w \\
        \gamma_i &= \mathrm{lr0} f(e) \text{ while } e = w // n, \text{ then } \mathrm{lr0} f(e - 1)
                    && i > w \\
        \mu_i &= \operatorname{interp}(i, [0, w], [\mathrm{warmup\_momentum}, \mathrm{momentum}])

    γ starts from ``warmup_bias_lr`` in ``"bias"`` and from 0 in the others. Only ``"weight"`` decays.
    Past the last epoch the curves go on as torch's would.

    Args:
      epochs: epochs of the cosine, E.
      steps_per_epoch: iterations in an epoch.
      warmup_iterations: length of the warm-up, in iterations; 0 for none.
      lr0: base rate of every group.
      lrf: the last rate, relative to ``lr0``.
      momentum: momentum after the warm-up.
      weight_decay: coupled decay of the group "weight".
      warmup_bias_lr: rate at which the biases' warm-up starts.
      warmup_momentum: momentum at which the warm-up starts.
      start_epoch: the epoch in which this process starts. After the warm-up its first epoch runs at
        the full ``lr0``.
      resumed: whether it starts with its predecessor's optimizer state; then its first epoch runs at
        the predecessor's last rate.

    Returns:
      A recipe of the groups ``"weight"``, ``"bias"`` and ``"norm"``.

    Raises:
      ValueError: epochs or steps below 1, a negative or non-finite number, a warm-up that is not an
        integer, ``start_epoch`` at or past ``epochs``.

    Source: the article "Yolov5学习率调整策略:lr_scheduler.LambdaLR",
    https://blog.csdn.net/jhsignal/article/details/113375398, a loop around
    ``torch.optim.lr_scheduler.LambdaLR``.

    >>> recipe = yolov5_resnet18(epochs=100, steps_per_epoch=30)
    >>> round(float(recipe.at(0)["bias"]["learning_rate"]), 6)
    0.1
    """
    arguments = dict(locals())
    require_run(epochs=epochs, steps_per_epoch=steps_per_epoch, start_epoch=start_epoch)
    for name in ("warmup_iterations", *NUMBERS):
        if callable(arguments[name]):
            raise TypeError(f"{name} must be a number, got a function. Put a schedule in a Recipe.")
    require_bool(resumed=resumed)
    # A fraction would not end at an iteration: torch keeps the last value that it wrote.
    rule = "a whole number of at least 0"
    require("warmup_iterations", warmup_iterations, rule, lambda v: v >= 0 and v == int(v))
    require_nonnegative(**{name: arguments[name] for name in NUMBERS})
    cosine = schedules.cosine(epochs, lrf=lrf)
    rate = policy.lagging_rate(lr0, cosine, warmup_iterations, arguments)
    return Recipe(
        policy.groups(rate, arguments, warmup_iterations),
        start=start_epoch * steps_per_epoch,
        length=epochs * steps_per_epoch,
        origin=(yolov5_resnet18, arguments),
    )


def recorded(name: str) -> Trace:
    """Return the trace of a run of an original.

    Args:
      name: ``"yolov5_resnet18"``, the article's script run with torch 2.13.0 on
        torchvision's ``resnet18(num_classes=10)``: 3,000 iterations in float64.

    Raises:
      ValueError: no trace has that name.

    >>> len(recorded("yolov5_resnet18"))
    3000
    """
    folder = resources.files("jaxsched.recipes") / "traces"
    names = sorted(path.name.removesuffix(".npz") for path in folder.iterdir())
    if name not in names:
        raise ValueError(f"name must be one of {', '.join(names)}, got {describe(name)}.")
    with resources.as_file(folder / f"{name}.npz") as path:
        return Trace.load(path)
