#pragma once
// Tokenizers and chat templates of the models that are served, read when they are first asked for.
#include <memory>
#include <vector>

#include "base/error.h"
#include "base/mutex.h"
#include "frontend/served_model.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "text/tool_format.h"

namespace penstock::frontend {

// From the model's Hugging Face directory; an error where it cannot be read.
struct ModelText {
  Result<text::Tokenizer> tokenizer;
  Result<text::ChatTemplate> chat_template;
  text::ToolFormat tool_format = text::ToolFormat::kNone;  // in which it calls tools: handler.tool_call_parser, or what the template shows
};

// Threads: every method from any thread.
class ModelTexts {
 public:
  // Blocks: reads files, once for each version of a model (a second or so for the largest vocabularies); who asks for the same one meanwhile waits.
  [[nodiscard]] std::shared_ptr<const ModelText> of(const std::shared_ptr<ServedModel>& model) EXCLUDES(mutex_);

 private:
  struct Entry;
  [[nodiscard]] std::shared_ptr<Entry> entry_of(const std::shared_ptr<ServedModel>& model) EXCLUDES(mutex_);

  Mutex mutex_;
  std::vector<std::shared_ptr<Entry>> entries_ GUARDED_BY(mutex_);  // those of models that are gone go when a new one comes
};

}  // namespace penstock::frontend
