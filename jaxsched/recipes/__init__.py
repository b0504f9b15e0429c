"""Training policies as recipes, one file each. All count iterations; 0 is the first."""

from jaxsched.recipes.article import yolov5_resnet18
from jaxsched.recipes.recorded import recorded
from jaxsched.recipes.ultralytics import ultralytics
from jaxsched.recipes.yolov5 import yolov5

__all__ = ["recorded", "ultralytics", "yolov5", "yolov5_resnet18"]
