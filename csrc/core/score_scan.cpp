#include "core/score_scan.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace edgepose {
namespace {

// Cells of one pass over all class rows: their running maxima stay in the first cache level.
constexpr std::size_t kBlock = 2048;

bool is_quantized(DType dtype) { return dtype == DType::kInt8 || dtype == DType::kUInt8; }
std::uint8_t flip_of(DType dtype) { return dtype == DType::kUInt8 ? 0x80 : 0; }

int lowest_passing(float real, const Quantization& quantization, int first_stored) {
  for (int i = 0; i < 256; ++i)
    if (quantization.real(first_stored + i) > real) return i - 128;
  return 128;
}

class Scan {
 public:
  Scan(const ScoreMap& map, const Quantization& quantization, const ScoreThreshold& threshold,
       const DecodeKernels& kernels, ScanBuffers& buffers, std::vector<Candidate>& out)
      : map_(map),
        reader_(*map.tensor, quantization),
        dtype_(map.tensor->dtype),
        threshold_(threshold),
        kernels_(kernels),
        buffers_(buffers),
        out_(out) {
    buffers_.indices.resize(std::max(buffers_.indices.size(), kBlock));
    buffers_.floats.resize(kBlock);
    buffers_.bytes.resize(kBlock);
  }

  void run() {
    if (is_quantized(dtype_) && threshold_.lowest(dtype_) > 127) return;
    if (map_.num_classes == 1 || map_.classes_last)
      scan_flat();
    else
      scan_rows();
  }

 private:
  const std::uint8_t* bytes_at(std::size_t i) const { return static_cast<const std::uint8_t*>(map_.tensor->data) + i; }
  const float* floats_at(std::size_t i) const { return static_cast<const float*>(map_.tensor->data) + i; }
  const std::uint16_t* halves_at(std::size_t i) const {
    return static_cast<const std::uint16_t*>(map_.tensor->data) + i;
  }

  // Positions in [0, n) of the run of elements at `first` that pass.
  std::size_t collect(std::size_t first, std::size_t n) {
    std::uint32_t* indices = buffers_.indices.data();
    if (is_quantized(dtype_))
      return kernels_.collect_at_least(bytes_at(first), n, flip_of(dtype_),
                                       static_cast<std::int8_t>(threshold_.lowest(dtype_)), indices);
    const float* row = floats_at(first);
    if (dtype_ == DType::kFloat16) {
      kernels_.half_to_float(halves_at(first), n, buffers_.floats.data());
      row = buffers_.floats.data();
    }
    return kernels_.collect_above(row, n, threshold_.real(), indices);
  }

  // One row of scores, or cells with their classes side by side.
  void scan_flat() {
    const std::size_t total = map_.num_cells * map_.num_classes;
    std::size_t next_cell = 0;  // the classes of one cell may pass one by one, and across blocks
    for (std::size_t start = 0; start < total; start += kBlock) {
      const std::size_t found = collect(map_.first + start, std::min(kBlock, total - start));
      for (std::size_t i = 0; i < found; ++i) {
        const std::size_t cell = (start + buffers_.indices[i]) / map_.num_classes;
        if (cell < next_cell) continue;
        next_cell = cell + 1;
        append(cell);
      }
    }
  }

  // A row for each class: the maximum over classes first, then its threshold.
  void scan_rows() {
    for (std::size_t start = 0; start < map_.num_cells; start += kBlock) {
      const std::size_t n = std::min(kBlock, map_.num_cells - start);
      const std::size_t found = is_quantized(dtype_) ? collect_best_int8(start, n) : collect_best_float(start, n);
      for (std::size_t i = 0; i < found; ++i) append(start + buffers_.indices[i]);
    }
  }

  std::size_t collect_best_float(std::size_t start, std::size_t n) {
    float* best = buffers_.floats.data();
    buffers_.half_row.resize(kBlock);
    std::fill_n(best, n, -std::numeric_limits<float>::infinity());
    for (std::size_t c = 0; c < map_.num_classes; ++c) {
      const std::size_t first = map_.first + c * map_.num_cells + start;
      if (dtype_ == DType::kFloat16) kernels_.half_to_float(halves_at(first), n, buffers_.half_row.data());
      kernels_.max_float(dtype_ == DType::kFloat16 ? buffers_.half_row.data() : floats_at(first), n, best);
    }
    return kernels_.collect_above(best, n, threshold_.real(), buffers_.indices.data());
  }

  std::size_t collect_best_int8(std::size_t start, std::size_t n) {
    std::int8_t* best = buffers_.bytes.data();
    std::fill_n(best, n, std::numeric_limits<std::int8_t>::min());
    for (std::size_t c = 0; c < map_.num_classes; ++c)
      kernels_.max_int8(bytes_at(map_.first + c * map_.num_cells + start), n, flip_of(dtype_), best);
    return kernels_.collect_at_least(reinterpret_cast<const std::uint8_t*>(best), n, 0,
                                     static_cast<std::int8_t>(threshold_.lowest(dtype_)), buffers_.indices.data());
  }

  void append(std::size_t cell) {
    const std::size_t class_stride = map_.classes_last ? 1 : map_.num_cells;
    const std::size_t first = map_.first + cell * (map_.classes_last ? map_.num_classes : 1);
    Candidate best{map_.first_anchor + static_cast<std::uint32_t>(cell), 0, reader_[first]};
    for (std::size_t c = 1; c < map_.num_classes; ++c) {
      const float value = reader_[first + c * class_stride];
      if (value > best.score || std::isnan(best.score)) best = {best.anchor, static_cast<std::int32_t>(c), value};
    }
    if (std::isfinite(best.score)) out_.push_back(best);
  }

  const ScoreMap& map_;
  Reader reader_;
  DType dtype_;
  const ScoreThreshold& threshold_;
  const DecodeKernels& kernels_;
  ScanBuffers& buffers_;
  std::vector<Candidate>& out_;
};

}  // namespace

ScoreThreshold::ScoreThreshold(float real, const Quantization& quantization)
    : real_(real),
      lowest_int8_(lowest_passing(real, quantization, -128)),
      lowest_uint8_(lowest_passing(real, quantization, 0)) {}

void scan_scores(const ScoreMap& map, const Quantization& quantization, const ScoreThreshold& threshold,
                 const DecodeKernels& kernels, ScanBuffers& buffers, std::vector<Candidate>& out) {
  Scan(map, quantization, threshold, kernels, buffers, out).run();
}

}  // namespace edgepose
