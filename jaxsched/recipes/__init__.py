"""Recipes of the article, YOLOv5, Ultralytics, timm and transformers."""

from jaxsched.recipes._article import recorded, yolov5_resnet18
from jaxsched.recipes._timm import timm
from jaxsched.recipes._transformers import transformers
from jaxsched.recipes._ultralytics import ultralytics
from jaxsched.recipes._yolov5 import yolov5

__all__ = ["recorded", "timm", "transformers", "ultralytics", "yolov5", "yolov5_resnet18"]
