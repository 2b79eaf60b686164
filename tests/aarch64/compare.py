"""Holds two answers of predict.py equal. usage: compare.py HERE.json THERE.json

The int8 model is integer arithmetic on both machines, so the keypoints agree to float rounding: 1e-3 pixels.
"""

import json
import sys
from pathlib import Path

import numpy as np

here, there = (json.loads(Path(path).read_text()) for path in sys.argv[1:3])
people_here, people_there = here["detections"], there["detections"]
assert people_here, "nobody was found here"
assert len(people_here) == len(people_there), (people_here, people_there)
for a, b in zip(people_here, people_there, strict=True):
    np.testing.assert_allclose(b["keypoints"], a["keypoints"], atol=1e-3)
    np.testing.assert_allclose(b["score"], a["score"], atol=1e-5)
print(f"{there['machine']} ({there['simd']}) gives the answer of {here['machine']} ({here['simd']})")
