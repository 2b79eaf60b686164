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
        quantization_(quantization),
        dtype_(map.tensor->dtype),
        threshold_(threshold),
        kernels_(kernels),
        buffers_(buffers),
        out_(out) {
    // A run of classes side by side is collected before its cells are merged: room for the longer of the two.
    buffers_.cells.resize(std::max(buffers_.cells.size(), map.num_cells + kBlock));
    buffers_.floats.resize(kBlock);
    buffers_.bytes.resize(kBlock);
  }

  void run() {
    if (is_quantized(dtype_) && threshold_.lowest(dtype_) > 127) return;
    std::size_t found = 0;
    if (map_.num_classes == 1)
      found = scan_row();
    else
      found = map_.classes_last ? scan_side_by_side() : scan_rows();
    const std::size_t before = out_.size();
    out_.resize(before + found);
    Candidate* end = out_.data() + before;
    visit_real(*map_.tensor, quantization_, [&](auto read) {
      for (std::size_t i = 0; i < found; ++i) {
        *end = best_class(buffers_.cells[i], read);
        end += std::isfinite(end->score);
      }
    });
    out_.resize(static_cast<std::size_t>(end - out_.data()));
  }

 private:
  const std::uint8_t* bytes_at(std::size_t i) const { return static_cast<const std::uint8_t*>(map_.tensor->data) + i; }
  const float* floats_at(std::size_t i) const { return static_cast<const float*>(map_.tensor->data) + i; }
  const std::uint16_t* halves_at(std::size_t i) const {
    return static_cast<const std::uint16_t*>(map_.tensor->data) + i;
  }

  // Positions in [0, n) of the run of elements at `first` that pass; n is at most kBlock for halves.
  std::size_t collect(std::size_t first, std::size_t n, std::uint32_t* out) {
    if (is_quantized(dtype_))
      return kernels_.collect_at_least(bytes_at(first), n, flip_of(dtype_),
                                       static_cast<std::int8_t>(threshold_.lowest(dtype_)), out);
    const float* row = floats_at(first);
    if (dtype_ == DType::kFloat16) {
      kernels_.half_to_float(halves_at(first), n, buffers_.floats.data());
      row = buffers_.floats.data();
    }
    return kernels_.collect_above(row, n, threshold_.real(), out);
  }

  // One class: cells are elements.
  std::size_t scan_row() {
    const std::size_t step = dtype_ == DType::kFloat16 ? kBlock : std::max<std::size_t>(map_.num_cells, 1);
    std::size_t count = 0;
    for (std::size_t start = 0; start < map_.num_cells; start += step) {
      std::uint32_t* out = buffers_.cells.data() + count;
      const std::size_t found = collect(map_.first + start, std::min(step, map_.num_cells - start), out);
      for (std::size_t i = 0; i < found; ++i) out[i] += static_cast<std::uint32_t>(start);
      count += found;
    }
    return count;
  }

  // The classes of a cell side by side: they may pass one by one, and across blocks.
  std::size_t scan_side_by_side() {
    const std::size_t total = map_.num_cells * map_.num_classes;
    std::uint32_t* cells = buffers_.cells.data();
    std::size_t count = 0, next_cell = 0;
    for (std::size_t start = 0; start < total; start += kBlock) {
      const std::uint32_t* indices = cells + count;
      const std::size_t found = collect(map_.first + start, std::min(kBlock, total - start), cells + count);
      for (std::size_t i = 0; i < found; ++i) {
        const std::size_t cell = (start + indices[i]) / map_.num_classes;
        if (cell < next_cell) continue;
        next_cell = cell + 1;
        cells[count++] = static_cast<std::uint32_t>(cell);
      }
    }
    return count;
  }

  // A row for each class: the maximum over classes first, then its threshold.
  std::size_t scan_rows() {
    std::size_t count = 0;
    for (std::size_t start = 0; start < map_.num_cells; start += kBlock) {
      const std::size_t n = std::min(kBlock, map_.num_cells - start);
      std::uint32_t* out = buffers_.cells.data() + count;
      const std::size_t found =
          is_quantized(dtype_) ? collect_best_int8(start, n, out) : collect_best_float(start, n, out);
      for (std::size_t i = 0; i < found; ++i) out[i] += static_cast<std::uint32_t>(start);
      count += found;
    }
    return count;
  }

  std::size_t collect_best_float(std::size_t start, std::size_t n, std::uint32_t* out) {
    float* best = buffers_.floats.data();
    buffers_.half_row.resize(kBlock);
    std::fill_n(best, n, -std::numeric_limits<float>::infinity());
    for (std::size_t c = 0; c < map_.num_classes; ++c) {
      const std::size_t first = map_.first + c * map_.num_cells + start;
      if (dtype_ == DType::kFloat16) kernels_.half_to_float(halves_at(first), n, buffers_.half_row.data());
      kernels_.max_float(dtype_ == DType::kFloat16 ? buffers_.half_row.data() : floats_at(first), n, best);
    }
    return kernels_.collect_above(best, n, threshold_.real(), out);
  }

  std::size_t collect_best_int8(std::size_t start, std::size_t n, std::uint32_t* out) {
    std::int8_t* best = buffers_.bytes.data();
    std::fill_n(best, n, std::numeric_limits<std::int8_t>::min());
    for (std::size_t c = 0; c < map_.num_classes; ++c)
      kernels_.max_int8(bytes_at(map_.first + c * map_.num_cells + start), n, flip_of(dtype_), best);
    return kernels_.collect_at_least(reinterpret_cast<const std::uint8_t*>(best), n, 0,
                                     static_cast<std::int8_t>(threshold_.lowest(dtype_)), out);
  }

  template <class Read>
  Candidate best_class(std::size_t cell, Read read) const {
    const std::size_t class_stride = map_.classes_last ? 1 : map_.num_cells;
    const std::size_t first = map_.first + cell * (map_.classes_last ? map_.num_classes : 1);
    Candidate best{map_.first_anchor + static_cast<std::uint32_t>(cell), 0, read(first)};
    for (std::size_t c = 1; c < map_.num_classes; ++c) {
      const float value = read(first + c * class_stride);
      if (value > best.score || std::isnan(best.score)) best = {best.anchor, static_cast<std::int32_t>(c), value};
    }
    return best;
  }

  const ScoreMap& map_;
  const Quantization& quantization_;
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
