// rope_scaling of a config.json.
#include <set>

#include "model/family.h"

namespace penstock::model {
namespace {

using Kind = RopeScaling::Kind;

Kind kind_of(const ConfigReader& file, const ConfigReader& rope) {
  const std::string type = rope.text("rope_type", rope.text("type", "default"));
  if (type == "default") return Kind::kNone;
  if (type == "linear") return Kind::kLinear;
  if (type == "dynamic") return Kind::kDynamic;
  if (type == "llama3") return Kind::kLlama3;
  if (type == "yarn") return Kind::kYarn;
  throw file.unimplemented(fmt::format("rope_scaling of type \"{}\" is not supported; this version computes default, linear, dynamic, llama3 and yarn", type));
}

// A key that we do not know might change what is computed.
void refuse_unknown_keys(const ConfigReader& file, const ConfigReader& rope) {
  static const std::set<std::string> known = {"type", "rope_type", "rope_theta", "factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor",
                                              "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate", "finetuned", "partial_rotary_factor"};
  for (const auto& [key, value] : rope.object().items()) {
    if (!known.contains(key)) throw file.unimplemented(fmt::format("{} is not supported", rope.name(key)));
  }
  rope.only("partial_rotary_factor", 1.0);
}

RopeScaling read_scaling(const ConfigReader& file, const ConfigReader& rope, int64_t max_positions) {
  RopeScaling s;
  s.kind = kind_of(file, rope);
  refuse_unknown_keys(file, rope);
  if (s.kind == Kind::kNone) return s;
  s.factor = rope.required_positive("factor");
  s.original_length = rope.integer("original_max_position_embeddings", 1, int64_t{1} << 31, max_positions);
  if (s.kind == Kind::kDynamic && s.original_length != max_positions) {
    throw file.unimplemented(fmt::format("dynamic rope_scaling from {} to {} tokens changes with the sequence and is not supported", s.original_length, max_positions));
  }
  if (s.kind == Kind::kLlama3) {
    s.low_freq_factor = rope.required_positive("low_freq_factor");
    s.high_freq_factor = rope.required_positive("high_freq_factor");
    if (s.high_freq_factor <= s.low_freq_factor) {
      throw file.invalid(fmt::format("{} {} must be more than low_freq_factor {}", rope.name("high_freq_factor"), s.high_freq_factor, s.low_freq_factor));
    }
  }
  if (s.kind == Kind::kYarn) {
    s.beta_fast = rope.positive("beta_fast", 32);
    s.beta_slow = rope.positive("beta_slow", 1);
    s.attention_factor = rope.positive("attention_factor", 0);
    s.mscale = rope.positive("mscale", 0);
    s.mscale_all_dim = rope.positive("mscale_all_dim", 0);
    s.truncate = rope.boolean("truncate", true);
  }
  return s;
}

}  // namespace

void read_rope(const ConfigReader& file, TransformerConfig& config) {
  file.only("partial_rotary_factor", 1.0);
  config.rope_theta = file.positive("rope_theta", 10000);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {  // the second since transformers 5
    if (file.find(key) == nullptr) continue;
    const ConfigReader rope = file.inside(key);
    config.rope_theta = rope.positive("rope_theta", config.rope_theta);
    config.rope_scaling = read_scaling(file, rope, config.max_position_embeddings);
  }
}

}  // namespace penstock::model
