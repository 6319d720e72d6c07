#include "model_converter.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/file.h"
#include "formats/gguf_config.h"
#include "formats/gguf_model.h"
#include "formats/model_folder.h"
#include "formats/weight_stream.h"
#include "text/gguf_tokenizer.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;
using formats::GgmlType;
using formats::GgufTensor;
using formats::TensorEntry;
using Json = nlohmann::ordered_json;

constexpr size_t kMaxConfigBytes = 16 << 20;
constexpr size_t kValuesAtOnce = size_t{1} << 20;

std::optional<GgmlType> float_type(const std::string& dtype) {
  for (const GgmlType type : {GgmlType::kF32, GgmlType::kF16, GgmlType::kBF16}) {
    if (dtype == formats::ggml_type_name(type)) return type;
  }
  return std::nullopt;
}

// [rows, columns] of values, turned.
std::vector<std::byte> turned(std::span<const std::byte> bytes, int64_t rows, int64_t columns, size_t size) {
  std::vector<std::byte> out(bytes.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) std::memcpy(out.data() + static_cast<size_t>(c * rows + r) * size, bytes.data() + static_cast<size_t>(r * columns + c) * size, size);
  }
  return out;
}

// The values of one type as those of another, a piece at a time. `take(bytes)`.
template <typename Take>
void retype(std::span<const std::byte> bytes, GgmlType from, GgmlType to, Take take) {
  if (from == to) return take(bytes);
  const auto block = static_cast<size_t>(formats::block_values(from));
  const size_t count = bytes.size() / formats::block_bytes(from) * block;
  std::vector<float> values;
  for (size_t begin = 0; begin < count; begin += kValuesAtOnce) {
    values.resize(std::min(kValuesAtOnce, count - begin));
    formats::dequantize(from, bytes.subspan(begin / block * formats::block_bytes(from), values.size() / block * formats::block_bytes(from)), values);
    take(std::span<const std::byte>(formats::quantize(to, values)));
  }
}

std::vector<std::byte> retyped(std::span<const std::byte> bytes, GgmlType from, GgmlType to) {
  std::vector<std::byte> out;
  retype(bytes, from, to, [&](std::span<const std::byte> piece) { out.insert(out.end(), piece.begin(), piece.end()); });
  return out;
}

// Tables that old checkpoints carry along; everyone computes them.
bool is_a_table(const std::string& name) {
  return std::ranges::any_of(std::initializer_list<const char*>{".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias"}, [&](const char* end) { return name.ends_with(end); });
}

// --- Hugging Face to GGUF

class ToGguf {
 public:
  explicit ToGguf(const ConversionOptions& options)
      : options_(options), config_text_(read_file(options.input / "config.json", kMaxConfigBytes).value()), config_(Json::parse(config_text_, nullptr, false)), model_(options.input) {}

  void write(const ConversionProgress& progress) {
    const std::string file = (options_.input / "config.json").string();
    formats::GgufConfig described = formats::gguf_of_config(config_text_, file);
    shape_ = {*std::get_if<std::string>(&described.metadata.front().second.value), number("num_attention_heads", "n_head"), 0};
    shape_.num_kv_heads = config_.contains("num_key_value_heads") ? number("num_key_value_heads", "") : shape_.num_heads;
    plan();
    auto metadata = std::move(described.metadata);
    metadata.insert(metadata.begin() + 1, {"general.name", formats::gguf_text(fs::absolute(options_.input).filename().string())});
    std::ranges::move(text::gguf_of_tokenizer(options_.input, vocab_size_), std::back_inserter(metadata));
    if (options_.type && !formats::is_float_type(*options_.type)) metadata.emplace_back("general.quantization_version", formats::gguf_u32(2));
    if (!described.rope_factors.empty()) {
      tensors_.push_back({formats::kRopeFactors, GgmlType::kF32, {static_cast<int64_t>(described.rope_factors.size())}, 0, 0});
    }
    AtomicFile out(options_.output);
    out.write(formats::format_gguf_header(metadata, tensors_));
    for (size_t i = 0; i < sources_.size(); ++i) {
      progress(static_cast<double>(i) / static_cast<double>(sources_.size()), tensors_[i].name);
      put(out, i);
    }
    if (!described.rope_factors.empty()) put_padded(out, std::as_bytes(std::span(described.rope_factors)));
    out.commit();
  }

 private:
  struct Source {
    size_t index;
    GgmlType type;
    formats::GgufPlace place;
  };

  [[nodiscard]] int64_t number(const char* key, const char* other) const {
    for (const char* name : {key, other}) {
      if (config_.contains(name) && config_[name].is_number_integer()) return config_[name].get<int64_t>();
    }
    throw error(Code::kInvalidArgument, "{}/config.json: key '{}': expected an integer", options_.input.string(), key);
  }

  void plan() {
    const bool is_gpt2 = shape_.architecture == "gpt2";
    const std::string prefix = is_gpt2 ? "transformer." : "model.";
    const bool has_prefix = std::ranges::any_of(model_.tensors(), [&](const TensorEntry& t) { return t.name.starts_with(prefix); });
    const bool tied = config_.value("tie_word_embeddings", is_gpt2);
    for (size_t i = 0; i < model_.tensors().size(); ++i) {
      const TensorEntry& tensor = model_.tensors()[i];
      if (is_a_table(tensor.name) || (tied && tensor.name == "lm_head.weight")) continue;
      const std::string name = has_prefix || tensor.name.starts_with("lm_head.") ? tensor.name : prefix + tensor.name;
      auto place = formats::gguf_place(shape_, name);
      const auto type = float_type(tensor.dtype);
      if (!place) throw error(Code::kUnimplemented, "{}: tensor '{}' has no place in a GGUF file of architecture {}", options_.input.string(), tensor.name, shape_.architecture);
      if (!type) throw error(Code::kUnimplemented, "{}: tensor '{}' has dtype {}; expected F32, F16 or BF16", options_.input.string(), tensor.name, tensor.dtype);
      if (tensor.shape.empty() || tensor.shape.size() > 2 || (place->transposed && tensor.shape.size() != 2)) {
        throw error(Code::kDataLoss, "{}: tensor '{}' has {} dims; expected 1 or 2", options_.input.string(), tensor.name, tensor.shape.size());
      }
      std::vector<int64_t> shape = tensor.shape;
      if (place->transposed) std::ranges::reverse(shape);
      if (place->num_heads > 0 && shape[0] % (2 * place->num_heads) != 0) {
        throw error(Code::kDataLoss, "{}: tensor '{}' has {} rows; expected an even number for each of {} heads", options_.input.string(), tensor.name, shape[0], place->num_heads);
      }
      if (place->name == "token_embd.weight") vocab_size_ = shape[0];
      tensors_.push_back({place->name, type_of(place->name, shape, *type), shape, 0, 0});
      sources_.push_back({i, *type, std::move(*place)});
    }
    if (vocab_size_ == 0) throw error(Code::kDataLoss, "{} holds no table of token embeddings", options_.input.string());
  }

  [[nodiscard]] GgmlType type_of(const std::string& name, const std::vector<int64_t>& shape, GgmlType source) const {
    if (shape.size() == 1 || name == "position_embd.weight") return GgmlType::kF32;
    if (!options_.type) return source;
    GgmlType type = *options_.type;
    if (type == GgmlType::kQ4_0 && (name == "token_embd.weight" || name == "output.weight")) type = GgmlType::kQ8_0;
    return shape.back() % formats::block_values(type) == 0 ? type : GgmlType::kF16;
  }

  void put(AtomicFile& out, size_t i) const {
    const Source& source = sources_[i];
    const TensorEntry& entry = model_.tensors()[source.index];
    auto bytes = model_.bytes(source.index);
    std::vector<std::byte> moved;
    if (source.place.transposed) bytes = moved = turned(bytes, entry.shape[0], entry.shape[1], formats::block_bytes(source.type));
    if (source.place.num_heads > 0) bytes = moved = formats::rows_to_llama(bytes, entry.shape[0], source.place.num_heads);
    uint64_t written = 0;
    retype(bytes, source.type, tensors_[i].type, [&](std::span<const std::byte> piece) {
      out.write({reinterpret_cast<const char*>(piece.data()), piece.size()});
      written += piece.size();
    });
    out.write(std::string(formats::gguf_padded(written) - written, '\0'));
  }

  static void put_padded(AtomicFile& out, std::span<const std::byte> bytes) {
    out.write({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    out.write(std::string(formats::gguf_padded(bytes.size()) - bytes.size(), '\0'));
  }

  const ConversionOptions& options_;
  const std::string config_text_;
  const Json config_;
  const formats::MappedModel model_;
  formats::GgufShape shape_;
  int64_t vocab_size_ = 0;
  std::vector<Source> sources_;
  std::vector<GgufTensor> tensors_;  // as sources_, and perhaps the rope factors
};

// --- GGUF to Hugging Face

class ToHuggingFace {
 public:
  ToHuggingFace(const ConversionOptions& options, const fs::path& file) : options_(options), model_(formats::GgufModel::open(file)) {
    const auto table = std::ranges::find_if(model_.entries(), [](const auto& entry) { return entry.second.place.name == "token_embd.weight"; });
    if (table == model_.entries().end()) throw error(Code::kDataLoss, "{} holds no table of token embeddings", file.string());
    type_ = options.type.value_or(kept(table->second.tensor->type));
    if (!formats::is_float_type(type_)) {
      throw error(Code::kInvalidArgument, "--type: a Hugging Face directory holds F32, F16 or BF16, not {}", formats::ggml_type_name(type_));
    }
  }

  // Into a new folder.
  void write(const fs::path& folder, const ConversionProgress& progress) {
    Json config = Json::parse(model_.config());  // first: what it refuses need not be converted
    std::vector<TensorEntry> entries;
    std::vector<GgmlType> types;
    for (const auto& [name, entry] : model_.entries()) {
      types.push_back(type_of(entry));
      entries.push_back({.name = name, .dtype = formats::ggml_type_name(types.back()), .shape = model_.hugging_face_shape(entry)});
    }
    for (const auto& [name, content] : text::tokenizer_files_of_gguf(model_.header())) write_file_atomic(folder / name, content);
    formats::WeightStream out(folder, entries, formats::kMaxShardBytes);
    size_t done = 0;
    for (const auto& [name, entry] : model_.entries()) {
      progress(static_cast<double>(done) / static_cast<double>(entries.size()), name);
      std::vector<std::byte> storage;
      std::vector<std::byte> bytes = retyped(model_.rows(entry, storage), entry.tensor->type, types[done]);
      if (entry.place.transposed) bytes = turned(bytes, entry.tensor->shape[0], entry.tensor->shape[1], formats::block_bytes(types[done]));
      out.add(bytes);
      ++done;
    }
    out.finish();
    const std::map<GgmlType, const char*> names = {{GgmlType::kF32, "float32"}, {GgmlType::kF16, "float16"}, {GgmlType::kBF16, "bfloat16"}};
    config["torch_dtype"] = names.at(type_);
    write_file_atomic(folder / "config.json", config.dump(2) + "\n");  // last: it makes the folder a model
  }

 private:
  static GgmlType kept(GgmlType type) { return formats::is_float_type(type) ? type : GgmlType::kF16; }

  [[nodiscard]] GgmlType type_of(const formats::GgufModel::Entry& entry) const {
    if (options_.type) return type_;
    const GgmlType type = kept(entry.tensor->type);
    if (type != GgmlType::kF32 || type_ == GgmlType::kF32) return type;
    const auto bytes = model_.map()->bytes().subspan(entry.tensor->begin, entry.tensor->end - entry.tensor->begin);
    const auto there_and_back = retyped(retyped(bytes, type, type_), type_, type);
    return std::ranges::equal(bytes, there_and_back) ? type_ : type;
  }

  const ConversionOptions& options_;
  const formats::GgufModel model_;
  GgmlType type_ = GgmlType::kF32;  // of the token table, and with it the directory's dtype
};

bool is_model_folder(const fs::path& folder) { return fs::is_regular_file(folder / "config.json"); }

void check_output(const ConversionOptions& options, bool to_gguf) {
  const fs::path& out = options.output;
  if (!fs::exists(out)) {
    const fs::path parent = fs::absolute(out).parent_path();
    if (!fs::is_directory(parent)) throw error(Code::kNotFound, "{}: there is no folder {}", out.string(), parent.string());
    return;
  }
  if (!options.overwrite) throw error(Code::kAlreadyExists, "{} exists; choose another name, or replace it with --overwrite", out.string());
  if (fs::equivalent(out, options.input)) throw error(Code::kInvalidArgument, "{}: input and output are the same", out.string());
  if (to_gguf && !fs::is_regular_file(out)) throw error(Code::kInvalidArgument, "{} is no file; it is not replaced", out.string());
  if (!to_gguf && !is_model_folder(out)) throw error(Code::kInvalidArgument, "{} is no Hugging Face directory (it has no config.json); it is not replaced", out.string());
}

void convert_to_folder(const ConversionOptions& options, const fs::path& file, const ConversionProgress& progress) {
  const fs::path inside = fs::weakly_canonical(file).lexically_relative(fs::weakly_canonical(options.output));
  if (!inside.empty() && *inside.begin() != "..") throw error(Code::kInvalidArgument, "{}: the input lies inside the output", file.string());
  fs::path unfinished = options.output, old = options.output;
  unfinished += ".writing";
  old += ".old";
  fs::remove_all(unfinished);
  ToHuggingFace conversion(options, file);
  fs::create_directory(unfinished);
  try {
    conversion.write(unfinished, progress);
    sync_path(unfinished);
    if (fs::exists(options.output)) fs::rename(options.output, old);
    fs::rename(unfinished, options.output);
    sync_path(fs::absolute(options.output).parent_path());
    fs::remove_all(old);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(unfinished, ignored);
    throw;
  }
}

}  // namespace

void convert_model(const ConversionOptions& given, const ConversionProgress& progress) {
  ConversionOptions options = given;
  if (!options.output.has_filename()) options.output = options.output.parent_path();  // "folder/"
  if (!fs::exists(options.input)) throw error(Code::kNotFound, "{}: there is no such file or folder", options.input.string());
  const auto gguf = formats::find_gguf(options.input);
  const bool to_gguf = options.output.extension() == ".gguf";
  if (gguf && to_gguf) throw error(Code::kInvalidArgument, "{} is a GGUF file already; to convert it, name a folder as the output", gguf->string());
  if (!gguf && !to_gguf) {
    throw error(Code::kInvalidArgument, "{}: expected a name that ends with .gguf, because {} is {}", options.output.string(), options.input.string(),
                is_model_folder(options.input) ? "a Hugging Face directory" : "no GGUF file");
  }
  check_output(options, to_gguf);
  if (to_gguf) ToGguf(options).write(progress);
  else convert_to_folder(options, *gguf, progress);
  progress(1, "");
}

}  // namespace penstock
