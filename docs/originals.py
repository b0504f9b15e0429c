"""The files of the originals, at their releases, that the ``Source:`` lines of docstrings name."""

import re
from collections.abc import Iterator

TORCH = "https://github.com/pytorch/pytorch/blob/v2.13.0/torch"
TIMM = "https://github.com/huggingface/pytorch-image-models/blob/v1.0.31"
TRANSFORMERS = "https://github.com/huggingface/transformers/blob/v5.24.0/src/transformers"
YOLOV5 = "https://github.com/ultralytics/yolov5/blob/v7.0"
ULTRALYTICS = "https://github.com/ultralytics/ultralytics/blob/v8.4.190/ultralytics"
ARTICLE = "https://blog.csdn.net/jhsignal/article/details/113375398"

FILES = {
    r"torch\.optim\.lr_scheduler\.\w+": f"{TORCH}/optim/lr_scheduler.py",
    r"torch\.optim\.swa_utils\.\w+": f"{TORCH}/optim/swa_utils.py",
    r"torch\.optim\.(Muon|Adafactor)": TORCH + "/optim/_{0}.py",
    r"torch\.optim\.(\w+)": TORCH + "/optim/{0}.py",
    r"torch\.nn\.utils\.clip_grad_\w+": f"{TORCH}/nn/utils/clip_grad.py",
    r"timm\.scheduler\.(\w+)LRScheduler": TIMM + "/timm/scheduler/{0}_lr.py",
    r"create_optimizer_v2": f"{TIMM}/timm/optim/_optim_factory.py",
    r"create_scheduler_v2": f"{TIMM}/timm/scheduler/scheduler_factory.py",
    r"param_groups_\w+": f"{TIMM}/timm/optim/_param_groups.py",
    r"ModelEmaV3": f"{TIMM}/timm/utils/model_ema.py",
    r"get_\w+": f"{TRANSFORMERS}/optimization.py",
    r"Trainer(\.\w+)?": f"{TRANSFORMERS}/trainer.py",
    r"smart_optimizer|ModelEMA": f"{YOLOV5}/utils/torch_utils.py",
    r"one_cycle": f"{YOLOV5}/utils/general.py",
    r"train\.py": f"{YOLOV5}/train.py",
    r"BaseTrainer(\.\w+)?": f"{ULTRALYTICS}/engine/trainer.py",
    r"ultralytics\.optim\.MuSGD": f"{ULTRALYTICS}/optim/muon.py",
    r"the article": ARTICLE,
}
"""Links by the text between double backticks in a docstring; ``{0}`` is a group in small letters."""


def link_of(name: str) -> str | None:
    """Return the link to an original, by its name in a docstring."""
    for pattern, link in FILES.items():
        if match := re.fullmatch(pattern, name):
            return link.format(*(str(group).lower() for group in match.groups()))
    return None


def list_links(paragraph: str) -> Iterator[tuple[str, str]]:
    """Yield the names in a ``Source:`` paragraph that have a link, each with it."""
    for name in re.findall(r"``([^`]+)``|(the article)\b", paragraph):
        text = name[0] or name[1]
        if link := link_of(text):
            yield text, link
