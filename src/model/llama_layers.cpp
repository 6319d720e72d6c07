#include "model/llama_layers.h"

#include <cmath>
#include <mutex>

#include "base/error.h"
#include "kernels/head_norm.h"
#include "kernels/rms_norm.h"
#include "kernels/rotary.h"
#include "model/document_starts.h"
#include "model/kv_cache.h"
#include "model/layer_share.h"
#include "model/new_parameter.h"

namespace penstock::model {
namespace {

// The cos and sin of all positions, made when the first block of a rank is built and shared by all: a long model has many.
class LazyRotary {
 public:
  explicit LazyRotary(const TransformerConfig& config) : config_(config) {}
  std::shared_ptr<const kernels::RotaryTable> get() {
    std::call_once(once_, [&] {
      const ScaledFrequencies f = scaled_frequencies(config_.rope_scaling, config_.head_size, config_.rope_theta);
      table_ = std::make_shared<const kernels::RotaryTable>(config_.max_sequence(), f.frequencies, f.scale);
    });
    return table_;
  }

 private:
  const TransformerConfig config_;
  std::once_flag once_;
  std::shared_ptr<const kernels::RotaryTable> table_;
};

// Token ids -> rows of a table.
class Embedding : public Layer {
 public:
  Embedding(const TransformerConfig& config, SharePtr share, SharedWeights& shared) : config_(config), share_(std::move(share)) {
    const auto make = [&] { return new_weight({share_->part().vocab.size(), config.hidden_size}); };
    table_ = config.tie_word_embeddings ? shared.get(kName, make) : make();
  }
  Tensors forward(const Tensors& inputs, const ForwardContext& context) override {
    return with_starts(share_->rows(table_, inputs.at(0), context.linear), inputs);
  }
  std::vector<Parameter> parameters() override { return {table_of(kName, table_, config_, *share_)}; }

  static constexpr const char* kName = "model.embed_tokens.weight";

 private:
  const TransformerConfig config_;
  const SharePtr share_;
  at::Tensor table_;  // [V, D]
};

// x + attention(norm(x)), then + feed-forward(norm(·)).
class DecoderBlock : public Layer {
 public:
  DecoderBlock(const TransformerConfig& config, SharePtr share, int index, std::shared_ptr<const kernels::RotaryTable> rotary)
      : config_(config),
        share_(std::move(share)),
        shape_(share_->attention()),
        width_(share_->part().intermediate.size()),
        index_(index),
        rotary_(std::move(rotary)),
        attention_norm_(new_weight({config.hidden_size})),
        qkv_(new_weight({shape_.row(), config.hidden_size})),
        qkv_bias_(optional_weight(config.qkv_bias, {shape_.row()})),
        q_norm_(optional_weight(config.qk_norm, {config.head_size})),
        k_norm_(optional_weight(config.qk_norm, {config.head_size})),
        attention_out_(new_weight({config.hidden_size, shape_.heads * config.head_size})),
        attention_out_bias_(optional_weight(config.attention_out_bias, {config.hidden_size})),
        feed_forward_norm_(new_weight({config.hidden_size})),
        gate_up_(new_weight({2 * width_, config.hidden_size})),
        gate_up_bias_(optional_weight(config.mlp_bias, {2 * width_})),
        down_(new_weight({config.hidden_size, width_})),
        down_bias_(optional_weight(config.mlp_bias, {config.hidden_size})) {}

  Tensors forward(const Tensors& inputs, const ForwardContext& context) override {
    const at::Tensor& x = inputs.at(0);  // [B, T, D] or [N, D]
    at::Tensor qkv = kernels::linear(share_->enter(kernels::rms_norm(x, attention_norm_, config_.norm_eps)), qkv_, qkv_bias_, context.linear);
    // Each rank norms its own heads: the gradients of the norms' weights are sums over ranks, as those of what enters.
    if (config_.qk_norm) qkv = kernels::head_norm(qkv, shape_, share_->enter(q_norm_), share_->enter(k_norm_), config_.norm_eps);
    const at::Tensor h = share_->leave(x, attention(qkv, starts_of(inputs), context), attention_out_, attention_out_bias_, context.linear);
    const at::Tensor gated = kernels::gated_linear(share_->enter(kernels::rms_norm(h, feed_forward_norm_, config_.norm_eps)), gate_up_, gate_up_bias_, context.linear);
    return with_starts(share_->leave(h, gated, down_, down_bias_, context.linear), inputs);
  }

  std::vector<Parameter> parameters() override {
    const std::string prefix = fmt::format("model.layers.{}.", index_), attention = prefix + "self_attn.", mlp = prefix + "mlp.";
    const double std = config_.initializer_range;
    const double residual_std = std / std::sqrt(2.0 * static_cast<double>(config_.num_layers));  // as GPT-2: the residual sum keeps its size
    std::vector<Parameter> all;
    all.push_back(whole(prefix + "input_layernorm.weight", attention_norm_, 0));
    all.push_back(used_as(WeightUse::kProduct, {attention + "qkv_proj.weight", qkv_, qkv_rows(attention, ".weight"), std, true}));
    if (config_.qkv_bias) all.push_back(bias_of(attention + "qkv_proj.bias", qkv_bias_, qkv_rows(attention, ".bias")));
    if (config_.qk_norm) all.push_back(whole(attention + "q_norm.weight", q_norm_, 0));
    if (config_.qk_norm) all.push_back(whole(attention + "k_norm.weight", k_norm_, 0));
    all.push_back(used_as(WeightUse::kProduct, {attention + "o_proj.weight", attention_out_, {attention_columns(attention + "o_proj.weight")}, residual_std, true}));
    if (config_.attention_out_bias) all.push_back(bias_of(attention + "o_proj.bias", attention_out_bias_));
    all.push_back(whole(prefix + "post_attention_layernorm.weight", feed_forward_norm_, 0));
    all.push_back(used_as(WeightUse::kProduct, {mlp + "gate_up_proj.weight", gate_up_, gate_up_rows(mlp, ".weight"), std, true}));
    if (config_.mlp_bias) all.push_back(bias_of(mlp + "gate_up_proj.bias", gate_up_bias_, gate_up_rows(mlp, ".bias")));
    all.push_back(used_as(WeightUse::kProduct, {mlp + "down_proj.weight", down_, {down_columns(mlp + "down_proj.weight")}, residual_std, true}));
    if (config_.mlp_bias) all.push_back(bias_of(mlp + "down_proj.bias", down_bias_));
    return all;
  }

  static int64_t num_parameters(const TransformerConfig& c) {
    const int64_t row = c.attention().row(), d = c.hidden_size, i = c.intermediate_size;
    return row * d + d * c.num_heads * c.head_size + 3 * i * d + 2 * d + (c.qkv_bias ? row : 0) + (c.attention_out_bias ? d : 0) +
           (c.mlp_bias ? 2 * i + d : 0) + (c.qk_norm ? 2 * c.head_size : 0);
  }

 private:
  at::Tensor attention(const at::Tensor& qkv, const at::Tensor& starts, const ForwardContext& context) const {
    if (context.cache == nullptr) return kernels::causal_attention(qkv, shape_, *rotary_, starts, context.linear.compute);
    return kernels::cached_attention(qkv, shape_, *rotary_, context.sequences, context.cache->keys(index_), context.cache->values(index_), context.step_rows);
  }
  [[nodiscard]] std::vector<StoredRows> qkv_rows(const std::string& prefix, const std::string& ending) const {
    const int64_t k = config_.head_size, q_rows = shape_.heads * k, kv_rows = shape_.kv_heads * k, all_kv = config_.num_kv_heads * k;
    const plan::Range q = share_->part().heads.times(k), kv = share_->part().kv_heads.times(k);
    return {rows_of(prefix + "q_proj" + ending, 0, q, config_.num_heads * k), rows_of(prefix + "k_proj" + ending, q_rows, kv, all_kv),
            rows_of(prefix + "v_proj" + ending, q_rows + kv_rows, kv, all_kv)};
  }
  [[nodiscard]] StoredRows attention_columns(const std::string& name) const {
    return columns_of(name, config_.hidden_size, share_->part().heads.times(config_.head_size), config_.num_heads * config_.head_size);
  }
  [[nodiscard]] std::vector<StoredRows> gate_up_rows(const std::string& prefix, const std::string& ending) const {
    const plan::Range own = share_->part().intermediate;
    return {rows_of(prefix + "gate_proj" + ending, 0, own, config_.intermediate_size), rows_of(prefix + "up_proj" + ending, width_, own, config_.intermediate_size)};
  }
  [[nodiscard]] StoredRows down_columns(const std::string& name) const {
    return columns_of(name, config_.hidden_size, share_->part().intermediate, config_.intermediate_size);
  }

  const TransformerConfig config_;
  const SharePtr share_;
  const kernels::AttentionShape shape_;  // H, G of this rank
  const int64_t width_;                  // I of this rank
  const int index_;
  const std::shared_ptr<const kernels::RotaryTable> rotary_;
  // Undefined where the model has none: the biases, and the norms of heads.
  at::Tensor attention_norm_;                     // [D]
  at::Tensor qkv_, qkv_bias_;                     // [(H+2G)·K, D], [(H+2G)·K]
  at::Tensor q_norm_, k_norm_;                    // [K]
  at::Tensor attention_out_, attention_out_bias_; // [D, H·K], [D]
  at::Tensor feed_forward_norm_;                  // [D]
  at::Tensor gate_up_, gate_up_bias_;             // [2·I, D], [2·I]
  at::Tensor down_, down_bias_;                   // [D, I], [D]
};

// The last norm, and the product with the output table.
class Head : public Layer {
 public:
  Head(const TransformerConfig& config, SharePtr share, SharedWeights& shared) : config_(config), share_(std::move(share)), norm_(new_weight({config.hidden_size})) {
    const auto make = [&] { return new_weight({share_->part().vocab.size(), config.hidden_size}); };
    table_ = config.tie_word_embeddings ? shared.get(Embedding::kName, make) : make();
  }
  Tensors forward(const Tensors& inputs, const ForwardContext& context) override {
    const at::Tensor x = context.output_rows.defined() ? inputs.at(0).index_select(0, context.output_rows) : inputs.at(0);
    return {share_->logits(kernels::rms_norm(x, norm_, config_.norm_eps), table_, context.linear)};
  }
  std::vector<Parameter> parameters() override {
    return {whole("model.norm.weight", norm_, 0), table_of(config_.tie_word_embeddings ? Embedding::kName : "lm_head.weight", table_, config_, *share_)};
  }

 private:
  const TransformerConfig config_;
  const SharePtr share_;
  at::Tensor norm_;   // [D]
  at::Tensor table_;  // [V, D]
};

}  // namespace

std::vector<LayerSpec> llama_layers(const TransformerConfig& config, const TensorRanks* ranks) {
  const auto share = std::make_shared<const LayerShare>(config, ranks);
  const std::vector<std::string> tied = config.tie_word_embeddings ? std::vector<std::string>{Embedding::kName} : std::vector<std::string>{};
  const auto rotary = std::make_shared<LazyRotary>(config);
  std::vector<LayerSpec> layers;
  layers.push_back({"model.embed_tokens", "Embedding", config.vocab_size * config.hidden_size,
                    [config, share](SharedWeights& shared) { return std::make_unique<Embedding>(config, share, shared); }, tied});
  for (int i = 0; i < config.num_layers; ++i) {
    layers.push_back({fmt::format("model.layers.{}", i), "DecoderBlock", DecoderBlock::num_parameters(config),
                      [config, share, i, rotary](SharedWeights&) { return std::make_unique<DecoderBlock>(config, share, i, rotary->get()); }, {}});
  }
  layers.push_back({"lm_head", "Head", (config.vocab_size + 1) * config.hidden_size,
                    [config, share](SharedWeights& shared) { return std::make_unique<Head>(config, share, shared); }, tied});
  return layers;
}

}  // namespace penstock::model
