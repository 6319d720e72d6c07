#include "frontend/model_texts.h"

#include <mutex>

namespace penstock::frontend {
namespace {

text::ToolFormat tool_format(const config::HandlerConfig& handler) {
  switch (handler.tool_call_parser) {
    case config::ToolCallParser::kNone: return text::ToolFormat::kNone;
    case config::ToolCallParser::kHermes: return text::ToolFormat::kHermes;
    case config::ToolCallParser::kLlama3Json: return text::ToolFormat::kLlama3Json;
    case config::ToolCallParser::kMistral: return text::ToolFormat::kMistral;
    case config::ToolCallParser::kAuto: break;
  }
  const auto source = text::ChatTemplate::source(handler.model_path, /*for_tools=*/true);
  return source ? text::tool_format_of(source.value()) : text::ToolFormat::kNone;
}

}  // namespace

struct ModelTexts::Entry {
  explicit Entry(const std::shared_ptr<ServedModel>& served) : model(served) {}
  const std::weak_ptr<ServedModel> model;
  std::once_flag read;
  std::shared_ptr<const ModelText> text;  // written once, by whom `read` lets
};

std::shared_ptr<const ModelText> ModelTexts::of(const std::shared_ptr<ServedModel>& model) {
  const std::shared_ptr<Entry> entry = entry_of(model);
  std::call_once(entry->read, [&] {
    const config::HandlerConfig& handler = model->spec().config.handler;
    entry->text = std::make_shared<ModelText>(ModelText{text::Tokenizer::load(handler.model_path), text::ChatTemplate::load(handler.model_path), tool_format(handler)});
  });
  return entry->text;
}

std::shared_ptr<ModelTexts::Entry> ModelTexts::entry_of(const std::shared_ptr<ServedModel>& model) {
  MutexLock lock(mutex_);
  for (const auto& entry : entries_) {
    if (entry->model.lock() == model) return entry;
  }
  std::erase_if(entries_, [](const auto& entry) { return entry->model.expired(); });
  return entries_.emplace_back(std::make_shared<Entry>(model));
}

}  // namespace penstock::frontend
