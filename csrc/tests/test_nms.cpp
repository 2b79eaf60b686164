#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "check.hpp"
#include "core/cpu.hpp"
#include "core/nms.hpp"
#include "core/oks.hpp"

using namespace edgepose;

namespace {

using Random = std::mt19937;

int draw(Random& random, int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); }

std::vector<float> random_scores(Random& random, std::size_t n, int distinct) {
  std::vector<float> scores(n);
  for (float& score : scores) score = static_cast<float>(draw(random, -distinct, distinct)) / 64.0f;
  return scores;
}

std::vector<Box> random_boxes(Random& random, std::size_t n) {
  std::vector<Box> boxes(n);
  for (Box& box : boxes) {
    const float x = static_cast<float>(draw(random, 0, 60)), y = static_cast<float>(draw(random, 0, 60));
    box = {x, y, x + static_cast<float>(draw(random, 0, 30)), y + static_cast<float>(draw(random, 0, 30))};
  }
  return boxes;
}

bool overlap(const Box& a, const Box& b, float threshold) {
  const float w = std::max(std::min(a.x2, b.x2) - std::max(a.x1, b.x1), 0.0f);
  const float h = std::max(std::min(a.y2, b.y2) - std::max(a.y1, b.y1), 0.0f);
  const float inter = w * h;
  return inter > threshold * (a.area() + b.area() - inter);
}

}  // namespace

TEST(scores_are_ordered_as_a_stable_sort_orders_them) {
  Random random(21);
  for (int round = 0; round < 200; ++round) {
    const std::size_t n = static_cast<std::size_t>(draw(random, 0, 900));
    const std::vector<float> scores = random_scores(random, n, draw(random, 1, 2000));
    std::vector<std::uint32_t> expected(n), ours;
    std::iota(expected.begin(), expected.end(), 0u);
    std::stable_sort(expected.begin(), expected.end(), [&](auto a, auto b) { return scores[a] > scores[b]; });
    std::vector<std::uint64_t> keys, spare;
    order_by_score(scores.data(), n, keys, spare);
    for (const std::uint64_t key : keys) ours.push_back(slot_of(key));
    CHECK(ours == expected);
  }
}

TEST(boxes_are_suppressed_as_one_by_one) {
  Random random(22);
  for (int round = 0; round < 200; ++round) {
    const std::size_t n = static_cast<std::size_t>(draw(random, 0, 400));
    const std::vector<Box> boxes = random_boxes(random, n);
    std::vector<float> scores = random_scores(random, n, 500);
    std::sort(scores.rbegin(), scores.rend());
    std::vector<std::int32_t> classes(n);
    for (std::int32_t& id : classes) id = draw(random, 0, 2);
    const float threshold = static_cast<float>(draw(random, 0, 10)) / 10.0f;
    const std::size_t max_det = static_cast<std::size_t>(draw(random, 1, 300));
    std::vector<std::uint32_t> expected;
    for (std::uint32_t i = 0; i < n && expected.size() < max_det; ++i)
      if (std::none_of(expected.begin(), expected.end(), [&](std::uint32_t j) {
            return classes[i] == classes[j] && overlap(boxes[i], boxes[j], threshold);
          }))
        expected.push_back(i);
    CHECK(suppress_boxes(boxes.data(), scores.data(), classes.data(), n, threshold, max_det) == expected);
  }
}

TEST(oks_is_the_formula) {
  Random random(23);
  const std::vector<float> sigmas = {0.1f, 0.5f, 0.025f};
  for (int round = 0; round < 100; ++round) {
    std::vector<float> a(6), b(6 * 5), areas(5);
    for (float& value : a) value = static_cast<float>(draw(random, 0, 100));
    for (float& value : b) value = static_cast<float>(draw(random, 0, 100));
    for (float& value : areas) value = static_cast<float>(draw(random, 0, 5000));
    const float area = 700.0f;
    std::vector<float> row(5);
    oks_matrix({a.data(), &area, 1}, {b.data(), areas.data(), 5}, sigmas, row.data());
    for (std::size_t i = 0; i < 5; ++i) {
      double sum = 0;
      for (std::size_t k = 0; k < 3; ++k) {
        const double dx = a[2 * k] - b[6 * i + 2 * k], dy = a[2 * k + 1] - b[6 * i + 2 * k + 1];
        sum += std::exp(-(dx * dx + dy * dy) / (8.0 * sigmas[k] * sigmas[k] * (area + areas[i]) / 2));
      }
      CHECK(std::abs(row[i] - sum / 3) < 1e-6);
    }
  }
}
