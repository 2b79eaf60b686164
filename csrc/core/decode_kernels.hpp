// The inner loops of decoding and NMS, one table of them for each instruction set.
//
// Every level does the same float operations in the same order on each lane, without fused multiply-add, so that all
// levels give the same bits. This header is included by files that are compiled for AVX: it may hold no inline code.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgepose {

enum class SimdLevel;

// Buffers that a kernel reads or writes by whole vectors hold a multiple of this many floats.
constexpr std::size_t kLanePad = 16;

constexpr std::size_t pad_lanes(std::size_t count) { return (count + kLanePad - 1) / kLanePad * kLanePad; }

// What NMS has kept so far, lane by lane; n is a multiple of kLanePad, lanes not in use have class_id -1.
struct KeptBoxes {
  const float *x1, *y1, *x2, *y2, *area, *class_id;
  std::size_t n;
};

// Keypoint k of lane i lies at x[k * capacity + i], y[k * capacity + i].
struct KeptPoses {
  const float *x, *y, *area, *class_id;
  std::size_t n, capacity, num_keypoints;
  const float* inverse_variance;  // 1 / (2 (2 sigma)^2) of each keypoint
};

struct BoxQuery {
  float x1, y1, x2, y2, area, class_id;
};

struct PoseQuery {
  const float* xy;  // K pairs
  float area, class_id;
};

// From input pixels to source pixels, x and y: (value - pad) * inverse_scale within low and high.
struct PointMap {
  float pad[2], inverse_scale[2], low[2], high[2];
};

// Coordinates beyond this are no place in a picture; NaN is none either.
constexpr float kFarthestPlace = 1e9f;

struct DecodeKernels {
  // Indices of x[i] > threshold, ascending; out holds n. NaN never passes.
  std::size_t (*collect_above)(const float* x, std::size_t n, float threshold, std::uint32_t* out);
  // Indices of int8(x[i] ^ flip) >= threshold: flip is 0x80 for uint8, 0 for int8.
  std::size_t (*collect_at_least)(const std::uint8_t* x, std::size_t n, std::uint8_t flip, std::int8_t threshold,
                                  std::uint32_t* out);
  // best[i] = max(x[i], best[i]); a NaN in x is passed over.
  void (*max_float)(const float* x, std::size_t n, float* best);
  // The same for int8(x[i] ^ flip).
  void (*max_int8)(const std::uint8_t* x, std::size_t n, std::uint8_t flip, std::int8_t* best);
  void (*half_to_float)(const std::uint16_t* x, std::size_t n, float* out);
  // x = 1 / (1 + exp(-x)), by whole vectors. NaN stays NaN.
  void (*sigmoid)(float* x, std::size_t n);
  // out[lane] = sum_b b * softmax(logits[:, lane])_b, logits (reg_max, lanes), lanes a multiple of kLanePad. NaN where
  // a logit of the lane is NaN or +infinity.
  void (*expectation)(const float* logits, std::size_t reg_max, std::size_t lanes, float* out);
  // Whether a kept box of the same class has IoU > threshold with the query.
  bool (*any_iou_above)(const KeptBoxes& kept, const BoxQuery& query, float threshold);
  // Whether a kept pose of the same class has OKS > threshold with the query.
  bool (*any_oks_above)(const KeptPoses& kept, const PoseQuery& query, float threshold);
  // OKS of the query with each kept pose, whatever the class.
  void (*oks_row)(const KeptPoses& kept, const PoseQuery& query, float* out);
  // Maps n points xy and cuts their scores to 0..1, by whole vectors; if a coordinate is no place or a score NaN,
  // changes nothing and returns false.
  bool (*map_points)(const PointMap& map, std::size_t n, float* xy, float* scores);
};

const DecodeKernels& decode_kernels(SimdLevel level);
const DecodeKernels& decode_kernels();  // of simd_level()

extern const DecodeKernels kDecodeKernelsPlain;
extern const DecodeKernels kDecodeKernelsAvx2;
extern const DecodeKernels kDecodeKernelsAvx512;
extern const DecodeKernels kDecodeKernelsNeon;

}  // namespace edgepose
