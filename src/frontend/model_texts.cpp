#include "frontend/model_texts.h"

#include <mutex>

namespace penstock::frontend {

struct ModelTexts::Entry {
  explicit Entry(const std::shared_ptr<ServedModel>& served) : model(served) {}
  const std::weak_ptr<ServedModel> model;
  std::once_flag read;
  std::shared_ptr<const ModelText> text;  // written once, by whom `read` lets
};

std::shared_ptr<const ModelText> ModelTexts::of(const std::shared_ptr<ServedModel>& model) {
  const std::shared_ptr<Entry> entry = entry_of(model);
  std::call_once(entry->read, [&] {
    const auto& folder = model->spec().config.handler.model_path;
    entry->text = std::make_shared<ModelText>(ModelText{text::Tokenizer::load(folder), text::ChatTemplate::load(folder)});
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
