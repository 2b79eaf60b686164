#pragma once

namespace edgepose {

// tensor = source * scale + pad, in pixels; the source is the whole picture, also where a region was given.
struct Transform {
  double scale_x = 1, scale_y = 1, pad_x = 0, pad_y = 0;
  // Throws std::invalid_argument for a scale that is not positive and finite, or a pad that is not finite.
  void validate() const;
};

}  // namespace edgepose
