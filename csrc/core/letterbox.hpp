// From a picture to a model's input in one pass: resize, pad, colour, layout, normalisation or quantization.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/aligned_buffer.hpp"
#include "core/image.hpp"
#include "core/letterbox_antialias.hpp"
#include "core/letterbox_bilinear.hpp"
#include "core/letterbox_geometry.hpp"
#include "core/letterbox_levels.hpp"
#include "core/letterbox_rows.hpp"
#include "core/transform.hpp"

namespace edgepose {

enum class Layout { kNchw, kNhwc };
enum class ModelColor { kRgb, kBgr, kGray };

struct LetterboxOptions {
  ResizeMode mode = ResizeMode::kLetterbox;
  bool center = true;
  int pad_value = 114;  // a level, mapped as the picture's levels are
  bool antialias = false;
  Layout layout = Layout::kNchw;
  ModelColor color = ModelColor::kRgb;
  LevelMapping mapping;  // one value of mean and std for each channel of the model
};

// One picture of the model's input, contiguous: [channels][height][width] or [height][width][channels].
struct OutputView {
  void* data = nullptr;
  ElementType type = ElementType::kFloat32;
  int width = 0;
  int height = 0;
};

// Keeps its tables and buffers from call to call; one thread at a time.
class Letterbox {
 public:
  explicit Letterbox(LetterboxOptions options);  // throws std::invalid_argument for options that do not fit together

  const LetterboxOptions& options() const { return options_; }
  int channels() const { return options_.color == ModelColor::kGray ? 1 : 3; }

  // Writes every element of `out`. The caller has made sure that the image's strides stay in its memory, that the
  // region is in the image and that neither is empty.
  Transform operator()(const ImageView& image, const Roi& roi, const OutputView& out);

 private:
  // What the samplers' tables are made for.
  struct Job {
    Placement placed;
    int source_width = 0, source_height = 0, channels = 0;
    const LetterboxKernels* kernels = nullptr;
    bool operator==(const Job& other) const;
  };

  void prepare(const Job& job);
  void sample_row(int y);
  ChannelOrder model_order() const;
  template <typename Bits>
  void write_picture(const OutputView& out);
  template <typename Bits>
  void write_row(Bits* const* channels, const ChannelOrder& order) const;

  LetterboxOptions options_;
  std::unique_ptr<LevelTables> levels_;
  RowReader reader_;
  Job job_;
  bool reduces_smoothly_ = false;  // antialiasing, and something to smooth
  BilinearSampler bilinear_;
  AntialiasSampler antialias_;
  AlignedBuffer<std::uint8_t> pixels_;
};

}  // namespace edgepose
