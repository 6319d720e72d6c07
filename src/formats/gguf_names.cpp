#include "formats/gguf_names.h"

#include <algorithm>
#include <cstring>
#include <iterator>

namespace penstock::formats {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 24;
constexpr const char* kArchitectures[] = {"gpt2", "llama", "qwen2", "qwen3"};

// `#` stands for the number of a block. Names without weight or bias at their end are those of both.
struct Pair {
  const char* hugging_face;
  const char* gguf;
  bool transposed = false;  // the matrix
};

constexpr Pair kLlamaNames[] = {
    {"model.embed_tokens", "token_embd"},
    {"model.norm", "output_norm"},
    {"lm_head", "output"},
    {"model.layers.#.input_layernorm", "blk.#.attn_norm"},
    {"model.layers.#.self_attn.q_proj", "blk.#.attn_q"},
    {"model.layers.#.self_attn.k_proj", "blk.#.attn_k"},
    {"model.layers.#.self_attn.v_proj", "blk.#.attn_v"},
    {"model.layers.#.self_attn.o_proj", "blk.#.attn_output"},
    {"model.layers.#.self_attn.q_norm", "blk.#.attn_q_norm"},
    {"model.layers.#.self_attn.k_norm", "blk.#.attn_k_norm"},
    {"model.layers.#.post_attention_layernorm", "blk.#.ffn_norm"},
    {"model.layers.#.mlp.gate_proj", "blk.#.ffn_gate"},
    {"model.layers.#.mlp.up_proj", "blk.#.ffn_up"},
    {"model.layers.#.mlp.down_proj", "blk.#.ffn_down"},
};

constexpr Pair kGpt2Names[] = {
    {"transformer.wte", "token_embd"},
    {"transformer.wpe", "position_embd"},
    {"transformer.ln_f", "output_norm"},
    {"lm_head", "output"},
    {"transformer.h.#.ln_1", "blk.#.attn_norm"},
    {"transformer.h.#.attn.c_attn", "blk.#.attn_qkv", true},
    {"transformer.h.#.attn.c_proj", "blk.#.attn_output", true},
    {"transformer.h.#.ln_2", "blk.#.ffn_norm"},
    {"transformer.h.#.mlp.c_fc", "blk.#.ffn_up", true},
    {"transformer.h.#.mlp.c_proj", "blk.#.ffn_down", true},
};

std::span<const Pair> names_of(const GgufShape& shape) {
  if (shape.architecture == "gpt2") return kGpt2Names;
  return kLlamaNames;
}

// "blk.12.attn_q.bias" as "blk.#.attn_q", "12" and ".bias".
struct Parts {
  std::string pattern, number, ending;
};

Parts cut(const std::string& name) {
  Parts parts{name, {}, {}};
  for (const char* ending : {".weight", ".bias"}) {
    if (!parts.pattern.ends_with(ending)) continue;
    parts.ending = ending;
    parts.pattern.resize(parts.pattern.size() - parts.ending.size());
  }
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  for (size_t dot = parts.pattern.find('.'); dot != std::string::npos; dot = parts.pattern.find('.', dot + 1)) {
    const size_t begin = dot + 1, end = std::min(parts.pattern.find('.', begin), parts.pattern.size());
    if (begin == end || !std::all_of(parts.pattern.begin() + static_cast<ptrdiff_t>(begin), parts.pattern.begin() + static_cast<ptrdiff_t>(end), is_digit)) continue;
    parts.number = parts.pattern.substr(begin, end - begin);
    parts.pattern.replace(begin, end - begin, "#");
    break;
  }
  return parts;
}

std::string joined(const char* pattern, const Parts& parts) {
  std::string name = pattern;
  if (const size_t at = name.find('#'); at != std::string::npos) name.replace(at, 1, parts.number);
  return name + parts.ending;
}

// Row `to` of the result is row `from` of the bytes.
template <typename From>
std::vector<std::byte> moved(std::span<const std::byte> bytes, int64_t rows, From from) {
  const size_t size = bytes.size() / static_cast<size_t>(rows);
  std::vector<std::byte> out(bytes.size());
  for (int64_t to = 0; to < rows; ++to) std::memcpy(out.data() + static_cast<size_t>(to) * size, bytes.data() + static_cast<size_t>(from(to)) * size, size);
  return out;
}

void check_heads(std::span<const std::byte> bytes, int64_t rows, int64_t num_heads) {
  PENSTOCK_CHECK(rows > 0 && num_heads > 0 && rows % (2 * num_heads) == 0 && bytes.size() % static_cast<size_t>(rows) == 0, "{} rows of {} heads in {} bytes",
                 rows, num_heads, bytes.size());
}

}  // namespace

std::string known_gguf_architectures() { return fmt::format("{}", fmt::join(kArchitectures, ", ")); }

GgufShape gguf_shape(const GgufHeader& header) {
  const std::string* architecture = header.text("general.architecture");
  if (architecture == nullptr) throw header.wrong("general.architecture", "the name of an architecture");
  if (std::ranges::find(kArchitectures, *architecture) == std::end(kArchitectures)) {
    throw error(Code::kUnimplemented, "{}: architecture '{}' is not supported; this version knows {}", header.file, architecture->substr(0, 80), known_gguf_architectures());
  }
  const std::string heads = *architecture + ".attention.head_count";
  GgufShape shape{*architecture, 0, 0};
  const auto num_heads = header.integer(heads, 1, kMaxSize);
  if (!num_heads) throw header.wrong(heads, "the number of heads");
  shape.num_heads = *num_heads;
  shape.num_kv_heads = header.integer(heads + "_kv", 1, kMaxSize).value_or(shape.num_heads);
  return shape;
}

std::optional<GgufPlace> gguf_place(const GgufShape& shape, const std::string& hugging_face_name) {
  const Parts parts = cut(hugging_face_name);
  for (const Pair& pair : names_of(shape)) {
    if (parts.pattern != pair.hugging_face || parts.ending.empty()) continue;
    GgufPlace place{joined(pair.gguf, parts), 0, pair.transposed && parts.ending == ".weight"};
    if (shape.architecture == "llama" && parts.pattern.ends_with("q_proj")) place.num_heads = shape.num_heads;
    if (shape.architecture == "llama" && parts.pattern.ends_with("k_proj")) place.num_heads = shape.num_kv_heads;
    return place;
  }
  return std::nullopt;
}

std::optional<std::string> hugging_face_name(const GgufShape& shape, const std::string& gguf_name) {
  const Parts parts = cut(gguf_name);
  for (const Pair& pair : names_of(shape)) {
    if (parts.pattern == pair.gguf && !parts.ending.empty()) return joined(pair.hugging_face, parts);
  }
  return std::nullopt;
}

std::vector<std::byte> rows_from_llama(std::span<const std::byte> bytes, int64_t rows, int64_t num_heads) {
  check_heads(bytes, rows, num_heads);
  const int64_t size = rows / num_heads, half = size / 2;
  return moved(bytes, rows, [&](int64_t row) {
    const int64_t i = row % size;
    return row - i + (i < half ? 2 * i : 2 * (i - half) + 1);
  });
}

std::vector<std::byte> rows_to_llama(std::span<const std::byte> bytes, int64_t rows, int64_t num_heads) {
  check_heads(bytes, rows, num_heads);
  const int64_t size = rows / num_heads, half = size / 2;
  return moved(bytes, rows, [&](int64_t row) {
    const int64_t i = row % size;
    return row - i + i / 2 + (i % 2) * half;
  });
}

}  // namespace penstock::formats
