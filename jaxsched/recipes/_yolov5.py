"""YOLOv5's own training policy as a recipe."""

from jaxsched._recipe import Recipe
from jaxsched._validate import require_choice
from jaxsched.recipes import _policy as policy
from jaxsched.recipes import _settings as settings
from jaxsched.recipes._settings import Settings

OPTIMIZERS = ("SGD", "Adam", "AdamW", "RMSProp")
VERSIONS = {"6.1": policy.Version(warmup_floor=1000, clip_norm=None), "7.0": policy.Version()}


def yolov5(
    *,
    epochs: int,
    steps_per_epoch: int,
    batch_size: int = 16,
    hyp: Settings = None,
    optimizer: str = "SGD",
    cos_lr: bool = False,
    start_epoch: int = 0,
    resumed: bool = False,
    version: str = "7.0",
) -> Recipe:
    r"""YOLOv5's run: three groups, warm-up, lagging decay, accumulation, clip and average.

    With i the iteration, n ``steps_per_epoch``, e = i // n and
    w = max(round(warmup_epochs n), floor), where the floor is 100 (1000 in 6.1):

    .. math::
        \gamma_i &= \operatorname{interp}(i, [0, w], [\gamma_{\mathrm{start}}, \mathrm{lr0} f(e)])
                    && i \le w \\
        \gamma_i &= \mathrm{lr0} f(e) \text{ while } e = w // n, \text{ then } \mathrm{lr0} f(e - 1)
                    && i > w \\
        \mu_i &= \operatorname{interp}(i, [0, w], [\mathrm{warmup\_momentum}, \mathrm{momentum}])

    f is ``schedules.linear`` or, with ``cos_lr``, ``schedules.one_cycle``. γ starts from
    ``warmup_bias_lr`` in ``"bias"`` and from 0 in the others. SGD and RMSProp have the momentum,
    which is warmed up; Adam's b1 is ``momentum`` and is not. ``"weight"`` decays by
    weight_decay · batch_size · a / 64 with a = max(round(64 / batch_size), 1). An update has a
    batches, after a ramp from 1 over the warm-up; batches pending at an epoch's end are dropped.

    **The loss that it expects** is the mean over the batch times ``batch_size``, the global one, on
    however many devices: gradients are summed over the batches of an update, and the original
    multiplies a batch's mean loss by its number of images, averages gradients over processes and
    scales by their number.

    Args:
      epochs: epochs of the run, E.
      steps_per_epoch: batches in an epoch.
      batch_size: images in a batch, on all devices together.
      hyp: the original's hyperparameters, a mapping or a YAML file such as
        ``hyp.scratch-low.yaml``; missing keys have their defaults, and keys of augmentation and loss
        are ignored.
      optimizer: "SGD" (with Nesterov), "Adam", "AdamW" or, in 7.0, "RMSProp".
      cos_lr: whether the rate decays along a cosine instead of a line.
      start_epoch: the epoch in which this process starts.
      resumed: whether it starts with its predecessor's optimizer and average; pass a restored state
        through ``optimizers.restarted``, since the original drops pending gradients.
      version: "6.1" or "7.0".

    Returns:
      A recipe of the groups ``"weight"``, ``"bias"`` and ``"norm"``; label the parameters with
      ``jaxsched.flax.by_module`` or ``param_groups.by_leaf_name``.

    Raises:
      ValueError: a number out of range, an unknown key, optimizer or version.

    Source: ``train.py`` of YOLOv5 6.1 and 7.0,
    https://github.com/ultralytics/yolov5/blob/v7.0/train.py

    >>> recipe = yolov5(epochs=300, steps_per_epoch=7393)
    >>> round(float(recipe.at(0)["bias"]["learning_rate"]), 6)
    0.1
    """
    arguments = dict(locals())
    policy.require_arguments(arguments)
    require_choice("version", version, VERSIONS)
    release = VERSIONS[version]
    require_choice("optimizer", optimizer, OPTIMIZERS)
    if optimizer == "RMSProp" and version == "6.1":
        raise ValueError("RMSProp must go with version 7.0, got '6.1'. Pass version=\"7.0\".")
    hyp = settings.numbers("hyp", settings.read("hyp", hyp), policy.DEFAULTS)
    nbs = 64
    batches = max(round(nbs / batch_size), 1)
    return policy.build(
        (yolov5, {**arguments, "hyp": hyp}),
        release,
        {**hyp, "weight_decay": hyp["weight_decay"] * (batch_size * batches / nbs)},
        optimizer=optimizer,
        warmup=max(round(hyp["warmup_epochs"] * steps_per_epoch), release.warmup_floor),
        nbs=nbs,
        batches=batches,
    )
