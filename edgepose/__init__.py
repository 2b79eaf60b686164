"""edgepose: keypoint (pose) estimation on small computers."""

__version__ = "0.1.0"
