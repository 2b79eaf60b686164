"""Static int8 by NNCF, which quantizes OpenVINO's models and ONNX's alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgepose_trainer.export.calibration import PERCENTILE


def quantize(model: Any, inputs: Sequence[Any], method: str, *, symmetric: bool = False) -> tuple[Any, dict[str, Any]]:
    """The model with int8 convolutions, and what to say of it in the metadata. inputs: what the model is fed.

    Weights symmetric and per channel, activations asymmetric ("mixed"), since SiLU's are hardly ever negative; biases
    corrected by what rounding shifts. What the last convolutions give is not rounded. symmetric: activations have the
    zero point 0, in uint8 where they are never negative, else in int8.
    """
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters

    advanced, ranges = AdvancedQuantizationParameters(), "NNCF's own (mean of the pictures' extremes)"
    if method != "auto":
        advanced.activations_range_estimator_params, ranges = _ranges(method)
    preset = nncf.QuantizationPreset.PERFORMANCE if symmetric else nncf.QuantizationPreset.MIXED
    quantized = nncf.quantize(
        model,
        nncf.Dataset(list(inputs)),
        preset=preset,
        subset_size=len(inputs),
        advanced_parameters=advanced,
    )
    activations = "symmetric 8-bit" if symmetric else "8-bit"
    scheme = f"NNCF, preset {preset.value}: int8 weights per channel, {activations} activations"
    return quantized, {"scheme": scheme, "ranges": ranges}


def _ranges(method: str) -> tuple[Any, str]:
    """How each activation's range is found, as NNCF is told it, and for people."""
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
    return RangeEstimatorParameters(low, high), text
