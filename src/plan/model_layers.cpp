#include "plan/model_layers.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>

namespace penstock::plan {

namespace {

constexpr int kMaxBlocks = 4094;  // with embedding and head as many layers as a partition takes

struct BlockName {
  std::string prefix;  // up to and with the number
  int number = 0;
};

// "model.layers.12.mlp.up_proj.weight" -> {"model.layers.12", 12}.
std::optional<BlockName> block_of(const std::string& tensor) {
  for (size_t dot = tensor.find('.'); dot != std::string::npos; dot = tensor.find('.', dot + 1)) {
    const size_t end = tensor.find('.', dot + 1);
    if (end == std::string::npos) return std::nullopt;
    int number = 0;
    const char* last = tensor.data() + end;
    const auto [stopped, status] = std::from_chars(tensor.data() + dot + 1, last, number);
    if (status == std::errc() && stopped == last && number >= 0) return BlockName{tensor.substr(0, end), number};
  }
  return std::nullopt;
}

bool is_embedding(const std::string& tensor) {
  return std::ranges::any_of(std::initializer_list<const char*>{"embed", "wte", "wpe"}, [&](const char* part) { return tensor.find(part) != std::string::npos; });
}

void add(ModelLayer& layer, const formats::TensorEntry& tensor) {
  int64_t elements = 1;
  for (const int64_t size : tensor.shape) {
    if (size == 0) return;
    elements *= size;
  }
  layer.parameters += elements;
  layer.bytes += static_cast<int64_t>(tensor.end - tensor.begin);
}

}  // namespace

Result<std::vector<ModelLayer>> layers_of_model(std::span<const formats::TensorEntry> tensors) {
  ModelLayer embedding{"embedding", "Embedding", 0, 0}, head{"head", "Head", 0, 0};
  std::map<int, ModelLayer> blocks;
  const formats::TensorEntry* table = nullptr;
  bool has_output_table = false;
  for (const formats::TensorEntry& tensor : tensors) {
    if (const auto block = block_of(tensor.name)) {
      ModelLayer& layer = blocks.try_emplace(block->number, ModelLayer{block->prefix, "DecoderBlock", 0, 0}).first->second;
      if (layer.name != block->prefix) {
        return error(Code::kInvalidArgument, "layers: expected one stack of blocks, found {} and {}", layer.name, block->prefix);
      }
      add(layer, tensor);
    } else if (is_embedding(tensor.name)) {
      add(embedding, tensor);
      embedding.name = tensor.name.substr(0, tensor.name.rfind('.'));
      if (table == nullptr || tensor.end - tensor.begin > table->end - table->begin) table = &tensor;
    } else {
      add(head, tensor);
      if (tensor.shape.size() == 2) has_output_table = true;
      if (tensor.name.find("lm_head") != std::string::npos) head.name = "lm_head";
    }
  }
  if (blocks.empty()) return error(Code::kInvalidArgument, "layers: expected tensors of numbered blocks, such as model.layers.0.*, found none");
  const auto count = static_cast<int>(blocks.size());
  if (blocks.rbegin()->first != count - 1 || count > kMaxBlocks) {
    return error(Code::kInvalidArgument, "layers: {} blocks with numbers up to {}; expected 0 to n-1, n at most {}", count, blocks.rbegin()->first, kMaxBlocks);
  }
  if (!has_output_table && table != nullptr) add(head, *table);
  std::vector<ModelLayer> layers = {embedding};
  for (auto& [number, block] : blocks) layers.push_back(std::move(block));
  layers.push_back(head);
  return layers;
}

}  // namespace penstock::plan
