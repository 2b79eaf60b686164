"""Datasets: their YAML, labels, checks, augmentation and loading."""

from edgepose_trainer.data.augment import AugmentConfig
from edgepose_trainer.data.config import DataConfig, load_data_config
from edgepose_trainer.data.dataset import Batch, BatchKey, PoseDataset, build_dataset
from edgepose_trainer.data.loader import Loader, build_loader

__all__ = [
    "AugmentConfig",
    "Batch",
    "BatchKey",
    "DataConfig",
    "Loader",
    "PoseDataset",
    "build_dataset",
    "build_loader",
    "load_data_config",
]
