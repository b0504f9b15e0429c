"""Import torchvision, even if its wheel is built for another device than torch's."""

import torch


def import_models():
    """Return ``torchvision.models``; timm can import torchvision after this."""
    try:
        from torchvision import models
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
        # The wheel's operators did not load; their schemas are all that the import needs.
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        from torchvision import models
    return models


def resnet18(**arguments):
    """Return ``torchvision.models.resnet18``."""
    return import_models().resnet18(**arguments)
