#include "check.hpp"

int main() {
  auto& registry = edgepose::testing::Registry::instance();
  for (auto& [name, body] : registry.tests) body();
  std::printf("%zu tests, %d failed checks\n", registry.tests.size(), registry.failures);
  return registry.failures == 0 ? 0 : 1;
}
