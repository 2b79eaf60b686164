"""Exports: a checkpoint as an artifact for a runtime, with proof inside that it does what the checkpoint did."""

from edgepose_trainer.export.exporter import export_model, verify
from edgepose_trainer.export.parity import Parity, ParityError

__all__ = ["Parity", "ParityError", "export_model", "verify"]
