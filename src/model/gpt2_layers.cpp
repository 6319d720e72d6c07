#include "model/gpt2_layers.h"

#include <cmath>
#include <span>

#include "base/error.h"
#include "kernels/attention.h"
#include "kernels/embedding.h"
#include "kernels/rotary.h"
#include "kernels/step_rows.h"
#include "model/document_starts.h"
#include "model/kv_cache.h"
#include "model/layer_share.h"
#include "model/new_parameter.h"

namespace penstock::model {
namespace {

constexpr const char* kTokens = "transformer.wte.weight";

// The weight and bias of one linear map, [O, D] and [O]; in the file the weight lies transposed.
struct Linear {
  Linear(int64_t out, int64_t in) : weight(new_weight({out, in})), bias(new_weight({out})) {}
  // Reads what every rank has, gives this rank's rows ...
  [[nodiscard]] at::Tensor enter(const at::Tensor& x, const LayerShare& share, const ForwardContext& context) const {
    return kernels::linear(share.enter(x), weight, bias, context.linear);
  }
  // ... which this one reads, whose results are summed and added to `base`.
  [[nodiscard]] at::Tensor leave(const at::Tensor& base, const at::Tensor& x, const LayerShare& share, const ForwardContext& context) const {
    return share.leave(base, x, weight, bias, context.linear);
  }

  // `runs`: the rows that this rank has of `whole` stored ones.
  void list_rows(const std::string& name, double init_std, std::span<const plan::Range> runs, int64_t whole, std::vector<Parameter>& all) const {
    std::vector<StoredRows> weights, biases;
    int64_t row = 0;
    for (const plan::Range& run : runs) {
      weights.push_back(rows_of(name + ".weight", row, run, whole, true));
      biases.push_back(rows_of(name + ".bias", row, run, whole));
      row += run.size();
    }
    all.push_back(used_as(WeightUse::kProduct, {name + ".weight", weight, std::move(weights), init_std, true}));
    all.push_back(bias_of(name + ".bias", bias, std::move(biases)));
  }
  void list_columns(const std::string& name, double init_std, plan::Range own, int64_t whole, std::vector<Parameter>& all) const {
    all.push_back(used_as(WeightUse::kProduct, {name + ".weight", weight, {columns_of(name + ".weight", weight.size(0), own, whole, true)}, init_std, true}));
    all.push_back(bias_of(name + ".bias", bias));
  }
  at::Tensor weight, bias;
};

struct LayerNorm {
  explicit LayerNorm(const TransformerConfig& config) : weight(new_weight({config.hidden_size})), bias(new_weight({config.hidden_size})), eps(config.norm_eps) {}
  [[nodiscard]] at::Tensor operator()(const at::Tensor& x) const { return at::layer_norm(x, weight.sizes(), weight, bias, eps); }
  void list(const std::string& name, std::vector<Parameter>& all) const {
    all.push_back(whole(name + ".weight", weight, 0));
    all.push_back(bias_of(name + ".bias", bias));
  }
  at::Tensor weight, bias;
  double eps;
};

// The position of each token: [T] for all rows of a training batch, [N] for the rows of a serving step.
at::Tensor positions_of(const at::Tensor& ids, const ForwardContext& context) {
  if (context.cache == nullptr && context.sequences.empty()) return at::arange(ids.size(-1), ids.options());
  if (context.step_rows != nullptr) return context.step_rows->positions();
  std::vector<int64_t> positions;
  for (const kernels::SequenceRows& rows : context.sequences) {
    for (int i = 0; i < rows.count; ++i) positions.push_back(rows.start + i);
  }
  return at::tensor(positions, at::kLong);
}

class Embedding : public Layer {
 public:
  Embedding(const TransformerConfig& config, SharePtr share, SharedWeights& shared)
      : config_(config), share_(std::move(share)), places_(new_weight({config.max_position_embeddings, config.hidden_size})) {
    const auto make = [&] { return new_weight({share_->part().vocab.size(), config.hidden_size}); };
    tokens_ = config.tie_word_embeddings ? shared.get(kTokens, make) : make();
  }
  Tensors forward(const Tensors& inputs, const ForwardContext& context) override {
    const at::Tensor& ids = inputs.at(0);
    at::Tensor positions = positions_of(ids, context);
    if (const at::Tensor starts = starts_of(inputs); starts.defined()) positions = positions - starts;  // they count within a document
    return with_starts(share_->rows(tokens_, ids, context.linear) + kernels::embedding(places_, positions, context.linear), inputs);
  }
  std::vector<Parameter> parameters() override {
    return {table_of(kTokens, tokens_, config_, *share_), used_as(WeightUse::kTable, whole("transformer.wpe.weight", places_, config_.initializer_range))};
  }

 private:
  const TransformerConfig config_;
  const SharePtr share_;
  at::Tensor places_;  // [positions, D], on every rank
  at::Tensor tokens_;  // [V, D]
};

// x + attention(norm(x)), then + feed-forward(norm(·)).
class Block : public Layer {
 public:
  Block(const TransformerConfig& c, SharePtr share, int index, std::shared_ptr<const kernels::RotaryTable> no_rotation)
      : config_(c),
        share_(std::move(share)),
        shape_(share_->attention()),
        index_(index),
        no_rotation_(std::move(no_rotation)),
        attention_norm_(c),
        feed_forward_norm_(c),
        qkv_(shape_.row(), c.hidden_size),
        attention_out_(c.hidden_size, shape_.heads * c.head_size),
        up_(share_->part().intermediate.size(), c.hidden_size),
        down_(c.hidden_size, share_->part().intermediate.size()) {}

  Tensors forward(const Tensors& inputs, const ForwardContext& context) override {
    const at::Tensor& x = inputs.at(0);  // [B, T, D] or [N, D]
    const at::Tensor mixed = attention(qkv_.enter(attention_norm_(x), *share_, context), starts_of(inputs), context);
    const at::Tensor h = attention_out_.leave(x, mixed, *share_, context);
    const at::Tensor up = at::gelu(up_.enter(feed_forward_norm_(h), *share_, context), "tanh");
    return with_starts(down_.leave(h, up, *share_, context), inputs);
  }

  std::vector<Parameter> parameters() override {
    const std::string prefix = fmt::format("transformer.h.{}.", index_);
    const double std = config_.initializer_range, residual_std = std / std::sqrt(2.0 * static_cast<double>(config_.num_layers));
    std::vector<Parameter> all;
    const int64_t d = config_.hidden_size;
    const plan::Range heads = share_->part().heads.times(config_.head_size), width = share_->part().intermediate;
    // The file has queries, keys and values of all heads one after another.
    std::vector<plan::Range> runs = {{0, 3 * d}};
    if (heads.size() < d) runs = {heads, heads.plus(d), heads.plus(2 * d)};
    attention_norm_.list(prefix + "ln_1", all);
    qkv_.list_rows(prefix + "attn.c_attn", std, runs, 3 * d, all);
    attention_out_.list_columns(prefix + "attn.c_proj", residual_std, heads, d, all);
    feed_forward_norm_.list(prefix + "ln_2", all);
    up_.list_rows(prefix + "mlp.c_fc", std, {&width, 1}, config_.intermediate_size, all);
    down_.list_columns(prefix + "mlp.c_proj", residual_std, width, config_.intermediate_size, all);
    return all;
  }

  static int64_t num_parameters(const TransformerConfig& c) {
    const int64_t d = c.hidden_size, i = c.intermediate_size;
    return 4 * d * d + 4 * d + 2 * i * d + i + d + 4 * d;
  }

 private:
  at::Tensor attention(const at::Tensor& qkv, const at::Tensor& starts, const ForwardContext& context) const {
    if (context.cache == nullptr) return kernels::causal_attention(qkv, shape_, *no_rotation_, starts, context.linear.compute);
    return kernels::cached_attention(qkv, shape_, *no_rotation_, context.sequences, context.cache->keys(index_), context.cache->values(index_), context.step_rows);
  }

  const TransformerConfig config_;
  const SharePtr share_;
  const kernels::AttentionShape shape_;  // of this rank's heads
  const int index_;
  const std::shared_ptr<const kernels::RotaryTable> no_rotation_;
  const LayerNorm attention_norm_, feed_forward_norm_;
  const Linear qkv_, attention_out_, up_, down_;
};

class Head : public Layer {
 public:
  Head(const TransformerConfig& config, SharePtr share, SharedWeights& shared) : config_(config), share_(std::move(share)), norm_(config) {
    const auto make = [&] { return new_weight({share_->part().vocab.size(), config.hidden_size}); };
    table_ = config.tie_word_embeddings ? shared.get(kTokens, make) : make();
  }
  Tensors forward(const Tensors& inputs, const ForwardContext& context) override {
    const at::Tensor x = context.output_rows.defined() ? inputs.at(0).index_select(0, context.output_rows) : inputs.at(0);
    return {share_->logits(norm_(x), table_, context.linear)};
  }
  std::vector<Parameter> parameters() override {
    std::vector<Parameter> all;
    norm_.list("transformer.ln_f", all);
    all.push_back(table_of(config_.tie_word_embeddings ? kTokens : "lm_head.weight", table_, config_, *share_));
    return all;
  }

 private:
  const TransformerConfig config_;
  const SharePtr share_;
  const LayerNorm norm_;
  at::Tensor table_;  // [V, D]
};

}  // namespace

std::vector<LayerSpec> gpt2_layers(const TransformerConfig& config, const TensorRanks* ranks) {
  const auto share = std::make_shared<const LayerShare>(config, ranks);
  const std::vector<std::string> tied = config.tie_word_embeddings ? std::vector<std::string>{kTokens} : std::vector<std::string>{};
  // Attention always rotates; by zero, queries and keys stay what they are.
  const auto no_rotation = std::make_shared<const kernels::RotaryTable>(config.max_position_embeddings, std::vector<double>(static_cast<size_t>(config.head_size / 2)));
  std::vector<LayerSpec> layers;
  layers.push_back({"transformer.wte", "Embedding", (config.vocab_size + config.max_position_embeddings) * config.hidden_size,
                    [config, share](SharedWeights& shared) { return std::make_unique<Embedding>(config, share, shared); }, tied});
  for (int i = 0; i < config.num_layers; ++i) {
    layers.push_back({fmt::format("transformer.h.{}", i), "DecoderBlock", Block::num_parameters(config),
                      [config, share, i, no_rotation](SharedWeights&) { return std::make_unique<Block>(config, share, i, no_rotation); }, {}});
  }
  layers.push_back({"lm_head", "Head", (config.vocab_size + 2) * config.hidden_size,
                    [config, share](SharedWeights& shared) { return std::make_unique<Head>(config, share, shared); }, tied});
  return layers;
}

}  // namespace penstock::model
