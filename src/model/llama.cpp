#include "model/llama.h"

#include <cmath>

#include "base/error.h"
#include "kernels/rms_norm.h"
#include "kernels/rotary.h"
#include "kernels/swiglu.h"
#include "model/kv_cache.h"

namespace penstock::model {
namespace {

at::Tensor weight(at::IntArrayRef shape) { return at::empty(shape, at::kFloat).requires_grad_(true); }

Parameter whole(const std::string& name, const at::Tensor& value, double init_std) {
  return {name, value, {{name, 0, value.size(0)}}, init_std, value.dim() > 1};
}

// Token ids -> rows of a table.
class Embedding : public Layer {
 public:
  Embedding(const LlamaConfig& config, SharedWeights& shared) : init_std_(config.initializer_range) {
    const auto make = [&] { return weight({config.vocab_size, config.hidden_size}); };
    table_ = config.tie_word_embeddings ? shared.get(kName, make) : make();
  }
  Tensors forward(const Tensors& inputs, const ForwardContext&) override { return {at::embedding(table_, inputs.at(0))}; }
  std::vector<Parameter> parameters() override { return {whole(kName, table_, init_std_)}; }

  static constexpr const char* kName = "model.embed_tokens.weight";

 private:
  double init_std_;
  at::Tensor table_;  // [V, D]
};

// x + attention(norm(x)), then + feed-forward(norm(·)).
class DecoderBlock : public Layer {
 public:
  DecoderBlock(const LlamaConfig& config, int index, std::shared_ptr<const kernels::RotaryTable> rotary)
      : config_(config),
        shape_(config.attention()),
        index_(index),
        rotary_(std::move(rotary)),
        attention_norm_(weight({config.hidden_size})),
        qkv_(weight({shape_.row(), config.hidden_size})),
        attention_out_(weight({config.hidden_size, config.num_heads * config.head_size})),
        feed_forward_norm_(weight({config.hidden_size})),
        gate_up_(weight({2 * config.intermediate_size, config.hidden_size})),
        down_(weight({config.hidden_size, config.intermediate_size})) {}

  Tensors forward(const Tensors& inputs, const ForwardContext& context) override {
    const at::Tensor& x = inputs.at(0);  // [B, T, D] or [N, D]
    const at::Tensor qkv = kernels::linear(kernels::rms_norm(x, attention_norm_, config_.rms_norm_eps), qkv_, context.linear);
    const at::Tensor h = x + kernels::linear(attention(qkv, context), attention_out_, context.linear);
    const at::Tensor gate_up = kernels::linear(kernels::rms_norm(h, feed_forward_norm_, config_.rms_norm_eps), gate_up_, context.linear);
    return {h + kernels::linear(kernels::swiglu(gate_up), down_, context.linear)};
  }

  std::vector<Parameter> parameters() override {
    const std::string prefix = fmt::format("model.layers.{}.", index_);
    const int64_t q = config_.num_heads * config_.head_size, kv = config_.num_kv_heads * config_.head_size, i = config_.intermediate_size;
    const double std = config_.initializer_range;
    const double residual_std = std / std::sqrt(2.0 * static_cast<double>(config_.num_layers));  // as GPT-2: the residual sum keeps its size
    Parameter qkv{prefix + "self_attn.qkv_proj.weight", qkv_,
                  {{prefix + "self_attn.q_proj.weight", 0, q}, {prefix + "self_attn.k_proj.weight", q, q + kv},
                   {prefix + "self_attn.v_proj.weight", q + kv, q + 2 * kv}}, std, true};
    Parameter gate_up{prefix + "mlp.gate_up_proj.weight", gate_up_,
                      {{prefix + "mlp.gate_proj.weight", 0, i}, {prefix + "mlp.up_proj.weight", i, 2 * i}}, std, true};
    return {whole(prefix + "input_layernorm.weight", attention_norm_, 0), std::move(qkv),
            whole(prefix + "self_attn.o_proj.weight", attention_out_, residual_std),
            whole(prefix + "post_attention_layernorm.weight", feed_forward_norm_, 0), std::move(gate_up),
            whole(prefix + "mlp.down_proj.weight", down_, residual_std)};
  }

 private:
  at::Tensor attention(const at::Tensor& qkv, const ForwardContext& context) const {
    if (context.cache == nullptr) return kernels::causal_attention(qkv, shape_, *rotary_);
    return kernels::cached_attention(qkv, shape_, *rotary_, context.sequences, context.cache->keys(index_), context.cache->values(index_));
  }

  const LlamaConfig config_;
  const kernels::AttentionShape shape_;
  const int index_;
  const std::shared_ptr<const kernels::RotaryTable> rotary_;
  at::Tensor attention_norm_;     // [D]
  at::Tensor qkv_;                // [(H+2G)·K, D]
  at::Tensor attention_out_;      // [D, H·K]
  at::Tensor feed_forward_norm_;  // [D]
  at::Tensor gate_up_;            // [2·I, D]
  at::Tensor down_;               // [D, I]
};

// The last norm, and the product with the output table.
class Head : public Layer {
 public:
  Head(const LlamaConfig& config, SharedWeights& shared)
      : eps_(config.rms_norm_eps), init_std_(config.initializer_range), tied_(config.tie_word_embeddings), norm_(weight({config.hidden_size})) {
    const auto make = [&] { return weight({config.vocab_size, config.hidden_size}); };
    table_ = tied_ ? shared.get(Embedding::kName, make) : make();
  }
  Tensors forward(const Tensors& inputs, const ForwardContext& context) override {
    const at::Tensor x = context.output_rows.defined() ? inputs.at(0).index_select(0, context.output_rows) : inputs.at(0);
    return {kernels::linear(kernels::rms_norm(x, norm_, eps_), table_, context.linear)};
  }
  std::vector<Parameter> parameters() override {
    return {whole("model.norm.weight", norm_, 0), whole(tied_ ? Embedding::kName : "lm_head.weight", table_, init_std_)};
  }

 private:
  double eps_, init_std_;
  bool tied_;
  at::Tensor norm_;   // [D]
  at::Tensor table_;  // [V, D]
};

}  // namespace

std::vector<LayerSpec> llama_layers(const LlamaConfig& config) {
  const std::vector<std::string> tied = config.tie_word_embeddings ? std::vector<std::string>{Embedding::kName} : std::vector<std::string>{};
  const auto rotary = std::make_shared<const kernels::RotaryTable>(config.max_position_embeddings, config.head_size, config.rope_theta);
  std::vector<LayerSpec> layers;
  layers.push_back({"model.embed_tokens", "Embedding", config.vocab_size * config.hidden_size,
                    [config](SharedWeights& shared) { return std::make_unique<Embedding>(config, shared); }, tied});
  for (int i = 0; i < config.num_layers; ++i) {
    layers.push_back({fmt::format("model.layers.{}", i), "DecoderBlock", config.block_parameters(),
                      [config, i, rotary](SharedWeights&) { return std::make_unique<DecoderBlock>(config, i, rotary); }, {}});
  }
  layers.push_back({"lm_head", "Head", (config.vocab_size + 1) * config.hidden_size,
                    [config](SharedWeights& shared) { return std::make_unique<Head>(config, shared); }, tied});
  return layers;
}

}  // namespace penstock::model
