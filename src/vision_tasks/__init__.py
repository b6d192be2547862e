"""Twelve tasks of computer vision: each a model, its loss, metric, baseline, figure."""

from src.vision_tasks.shared.task import Task
from src.vision_tasks.tasks.anomaly_detection import AnomalyDetection
from src.vision_tasks.tasks.classification import Classification
from src.vision_tasks.tasks.depth_estimation import DepthEstimation
from src.vision_tasks.tasks.image_captioning import ImageCaptioning
from src.vision_tasks.tasks.image_inpainting import ImageInpainting
from src.vision_tasks.tasks.instance_segmentation import InstanceSegmentation
from src.vision_tasks.tasks.lane_detection import LaneDetection
from src.vision_tasks.tasks.object_detection import ObjectDetection
from src.vision_tasks.tasks.optical_flow import OpticalFlow
from src.vision_tasks.tasks.semantic_segmentation import SemanticSegmentation
from src.vision_tasks.tasks.super_resolution import SuperResolution
from src.vision_tasks.tasks.trajectory_prediction import TrajectoryPrediction

#: Every task of the guide, by its name.
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Classification(),
        ObjectDetection(),
        SemanticSegmentation(),
        InstanceSegmentation(),
        DepthEstimation(),
        OpticalFlow(),
        LaneDetection(),
        TrajectoryPrediction(),
        AnomalyDetection(),
        ImageCaptioning(),
        SuperResolution(),
        ImageInpainting(),
    )
}
