"""Predicts on a real picture with the TFLite runtime and prints the result as JSON. usage: predict.py SHARED_FOLDER"""

import json
import platform
import sys
from pathlib import Path

from edgepose import PoseRunner, _core

shared = Path(sys.argv[1])
with PoseRunner(shared / "models/movenet_single_pose_lightning_ptq.tflite", conf=0.1, threads=1) as runner:
    result = runner.predict(shared / "data/squat.bmp")
answer = result.to_dict() | {"machine": platform.machine(), "simd": _core.simd_level()}
print(json.dumps(answer, default=str))
