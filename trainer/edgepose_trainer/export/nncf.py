"""Static int8 by NNCF, which quantizes OpenVINO's models and ONNX's alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgepose_trainer.export.calibration import PERCENTILE


def quantize(model: Any, inputs: Sequence[Any], method: str) -> tuple[Any, dict[str, Any]]:
    """The model with int8 convolutions, and what to say of it in the metadata. inputs: what the model is fed.

    Weights symmetric and per channel, activations asymmetric ("mixed"), since SiLU's are hardly ever negative; biases
    corrected by what rounding shifts. What the last convolutions give is not rounded.
    """
    import nncf

    advanced, ranges = None, "NNCF's own (mean of the pictures' extremes)"
    if method != "auto":
        advanced, ranges = _ranges(method)
    quantized = nncf.quantize(
        model,
        nncf.Dataset(list(inputs)),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(inputs),
        advanced_parameters=advanced,
    )
    return quantized, {"scheme": "NNCF, preset mixed: int8 weights per channel, 8-bit activations", "ranges": ranges}


def _ranges(method: str) -> tuple[Any, str]:
    """How each activation's range is found, as NNCF is told it, and for people."""
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
    from nncf.quantization.range_estimator import (
        AggregatorType,
        RangeEstimatorParameters,
        StatisticsCollectorParameters,
        StatisticsType,
    )

    if method == "minmax":
        low = StatisticsCollectorParameters(StatisticsType.MIN, AggregatorType.MIN)
        high = StatisticsCollectorParameters(StatisticsType.MAX, AggregatorType.MAX)
        text = "minimum and maximum"
    else:
        outlier = 1 - PERCENTILE / 100
        low, high = (
            StatisticsCollectorParameters(StatisticsType.QUANTILE, AggregatorType.MEAN, quantile_outlier_prob=outlier)
            for _ in range(2)
        )
        text = f"percentile {PERCENTILE} of each picture, averaged"
    return AdvancedQuantizationParameters(activations_range_estimator_params=RangeEstimatorParameters(low, high)), text
