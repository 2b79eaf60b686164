#include "core/letterbox_bilinear.hpp"

#include <algorithm>
#include <iterator>

namespace edgepose {
namespace {

constexpr int kRegister = 16;  // bytes that a shuffle picks from, where a window is not larger

int round_up(int n, int block) { return (n + block - 1) / block * block; }

template <int kChannels>
void sample_each_column(const std::uint8_t* row, const std::vector<BilinearColumn>& columns, std::int16_t* out) {
  for (const BilinearColumn& column : columns) {
    for (int c = 0; c < kChannels; ++c) {
      const int sum = row[column.first + c] * column.first_weight + row[column.second + c] * column.second_weight;
      out[c] = static_cast<std::int16_t>(sum >> 4);
    }
    out += kChannels == 1 ? 1 : 4;
  }
}

}  // namespace

void BilinearSampler::prepare(const PictureSizes& sizes, const LetterboxKernels& kernels) {
  sizes_ = sizes;
  rows_ = bilinear_axis(sizes.source_height, sizes.height, Edge::kBlended);
  columns_ = bilinear_axis(sizes.source_width, sizes.width, Edge::kWhole);
  outputs_ = round_up(sizes.width * sizes.lanes(), kOutputBlock);
  const auto outputs = static_cast<std::size_t>(outputs_);
  for (AlignedBuffer<std::int16_t>& row : sampled_) row.reserve(outputs);
  levels_.reserve(outputs);
  prepare_columns();
  prepare_windows(kernels);
}

void BilinearSampler::start() { std::fill(std::begin(source_y_), std::end(source_y_), -1); }

void BilinearSampler::prepare_columns() {
  column_table_.clear();
  for (std::size_t i = 0; i < columns_.first.size(); ++i)
    column_table_.push_back({columns_.first[i] * sizes_.channels, columns_.second[i] * sizes_.channels,
                             columns_.first_weight[i], columns_.second_weight[i]});
}

void BilinearSampler::prepare_windows(const LetterboxKernels& kernels) {
  window_sampler_ = {};
  // The windows' arithmetic takes one weight for the other's complement. Roundings can break that only where the
  // output is thousands of pixels wide.
  const auto complete = [](const BilinearColumn& column) {
    return column.first_weight + column.second_weight == BilinearAxis::kOne;
  };
  if (!std::all_of(column_table_.begin(), column_table_.end(), complete)) return;
  const auto outputs = static_cast<std::size_t>(outputs_);
  window_starts_.reserve(outputs);
  window_indices_.reserve(2 * outputs);
  window_weights_.reserve(outputs);
  for (const WindowSampler& sampler : kernels.window_samplers)
    if (sampler.sample != nullptr && fill_windows(sampler)) {
      window_sampler_ = sampler;
      return;
    }
}

// False where the columns that one window serves read more of the row than the window holds.
bool BilinearSampler::fill_windows(const WindowSampler& sampler) {
  const int lanes = sizes_.lanes();
  const int last_start = sizes_.source_width * sizes_.channels - sampler.bytes;
  if (last_start < 0) return false;
  for (int i = 0; i < outputs_; ++i) {
    const int window = i / sampler.outputs;
    const BilinearColumn& column = column_table_[std::min(i / lanes, sizes_.width - 1)];  // the last one is repeated
    if (i % sampler.outputs == 0) window_starts_[window] = std::min(column.first, last_start);
    const int from_start = std::min(i % lanes, sizes_.channels - 1) - window_starts_[window];
    const bool second_is_nearer = column.second_weight > BilinearAxis::kOne / 2;
    const int nearer = from_start + (second_is_nearer ? column.second : column.first);
    const int farther = from_start + (second_is_nearer ? column.first : column.second);
    if (std::max(nearer, farther) >= sampler.bytes) return false;
    const int before = sampler.bytes < kRegister ? window * sampler.bytes % kRegister : 0;
    window_indices_[2 * i] = static_cast<std::uint8_t>(before + nearer);
    window_indices_[2 * i + 1] = static_cast<std::uint8_t>(before + farther);
    window_weights_[i] = static_cast<std::int16_t>(-32 * std::min(column.first_weight, column.second_weight));
  }
  return true;
}

void BilinearSampler::sample_columns(const std::uint8_t* row, std::int16_t* out) const {
  if (window_sampler_.sample != nullptr)
    return window_sampler_.sample(
        row, {outputs_, window_starts_.data(), window_indices_.data(), window_weights_.data()}, out);
  if (sizes_.channels == 1) return sample_each_column<1>(row, column_table_, out);
  if (sizes_.channels == 3) return sample_each_column<3>(row, column_table_, out);
  sample_each_column<4>(row, column_table_, out);
}

const std::int16_t* BilinearSampler::sampled_row(int source_y, RowReader& reader) {
  const int slot = source_y % 2;
  if (source_y_[slot] != source_y) {
    sample_columns(reader.row(source_y), sampled_[slot].data());
    source_y_[slot] = source_y;
  }
  return sampled_[slot].data();
}

void BilinearSampler::sample(int y, RowReader& reader, const LetterboxKernels& kernels, std::uint8_t* pixels) {
  if (copies_rows()) return kernels.copy_columns(reader.row(source_row(y)), sizes_.channels, sizes_.width, pixels);
  const std::int16_t* above = sampled_row(rows_.first[y], reader);
  const bool one_row = rows_.second_weight[y] == 0;
  const std::int16_t* below = one_row ? above : sampled_row(rows_.second[y], reader);
  std::uint8_t* levels = sizes_.channels == 1 ? levels_.data() : pixels;
  kernels.blend_rows(above, below, rows_.first_weight[y], rows_.second_weight[y], levels, outputs_);
  if (sizes_.channels == 1) kernels.copy_columns(levels, 1, sizes_.width, pixels);
}

}  // namespace edgepose
