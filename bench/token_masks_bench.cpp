// What a constraint costs: reading it, the trie of a vocabulary, and the mask of each new place in a text.
//   token_masks_bench MODEL [--texts N]
// walks N texts of random allowed tokens under constraints, and prints what their masks took on this thread.
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <ctime>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <random>
#include <vector>

#include "text/grammar.h"
#include "text/text_constraint.h"
#include "text/token_masks.h"
#include "text/tokenizer.h"

namespace penstock::text {
namespace {

constexpr const char* kSchema = R"({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 130},
  "address": {"type": "object", "properties": {"street": {"type": "string"}, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}}, "required": ["street"]},
  "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 5}, "score": {"type": "number"}}, "required": ["name", "age", "tags"]})";

// Of this thread, so that other processes do not count.
double cpu_ms() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return 1e3 * static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_nsec);
}

template <typename Work>
double ms_of(Work work) {
  const double begin = cpu_ms();
  work();
  return cpu_ms() - begin;
}

void print(const char* what, std::vector<double>& ms) {
  std::sort(ms.begin(), ms.end());
  if (!ms.empty()) fmt::print("  {:<26} {:6} times: median {:8.3f} ms, 99 % {:8.3f} ms, most {:8.3f} ms\n", what, ms.size(), ms[ms.size() / 2], ms[ms.size() * 99 / 100], ms.back());
}

void measure(const char* name, const TextConstraint& constraint, const std::shared_ptr<const TokenTrie>& trie, int texts) {
  std::shared_ptr<TokenMasks> masks;
  const double compile = ms_of([&] { masks = std::make_shared<TokenMasks>(std::make_shared<const Grammar>(constraint_grammar(constraint).value()), trie); });
  fmt::print("{}: read in {:.3f} ms\n", name, compile);
  std::mt19937 random(1);
  std::vector<double> first, later, adds;
  const auto size = static_cast<size_t>(trie->vocab_size());
  for (int i = 0; i < texts; ++i) {
    TokenMasks::Progress progress;
    for (int token = 0; token < 200; ++token) {
      std::shared_ptr<const TokenMasks::Mask> mask;
      (i == 0 ? first : later).push_back(ms_of([&] { mask = masks->mask(progress); }));
      if (!mask->any) break;
      size_t id = random() % size;
      while (!mask->allows(id)) id = (id + 1) % size;
      auto next = TokenMasks::Next::kGoesOn;
      adds.push_back(ms_of([&] { next = masks->add(progress, static_cast<int32_t>(id)); }));
      if (next != TokenMasks::Next::kGoesOn) break;
    }
  }
  print("masks of the first text", first);
  print("masks of later texts", later);
  print("tokens added", adds);
}

int run(const std::filesystem::path& model, int texts) {
  const Tokenizer tokenizer = Tokenizer::load(model).value();
  std::shared_ptr<const TokenTrie> trie;
  const double build = ms_of([&] { trie = std::make_shared<const TokenTrie>(tokenizer); });
  fmt::print("{} tokens, trie of {} nodes in {:.1f} ms\n", trie->vocab_size(), trie->size(), build);
  measure("a schema", {TextConstraint::Kind::kJsonSchema, kSchema}, trie, texts);
  measure("any JSON object", {TextConstraint::Kind::kJsonObject, ""}, trie, texts);
  measure("a pattern", {TextConstraint::Kind::kRegex, "(\\w+ ){3,40}\\d{4}\\."}, trie, texts);
  const TextConstraint large{TextConstraint::Kind::kJsonSchema, R"({"type": "array", "items": {"type": "string", "maxLength": 5000}, "maxItems": 12000})"};
  fmt::print("a large schema: read in {:.1f} ms\n", ms_of([&] { (void)constraint_grammar(large).value(); }));
  const TextConstraint too_large{TextConstraint::Kind::kRegex, "((((a{99}){99}){99}){99}){99}"};
  fmt::print("a pattern beyond it: refused in {:.1f} ms\n", ms_of([&] { (void)constraint_grammar(too_large); }));
  return 0;
}

}  // namespace
}  // namespace penstock::text

int main(int argc, char** argv) {
  CLI::App app{"Measures the masks of constrained texts"};
  std::filesystem::path model;
  int texts = 20;
  app.add_option("model", model, "A model, or a folder with its tokenizer")->required();
  app.add_option("--texts", texts, "Texts to walk");
  CLI11_PARSE(app, argc, argv);
  try {
    return penstock::text::run(model, texts);
  } catch (const penstock::Error& e) {
    fmt::print(stderr, "token_masks_bench: {}\n", e.message());
    return 1;
  }
}
